// What is computed once at each evaluation, so that dashboards and alerts read a few series however many the API has.
// Names are level:metric:operations; every level is a sum of the one below it.
local config = import 'config.libsonnet';
local duration = import 'duration.libsonnet';

// Prometheus 3 writes `1.0` for the bucket that 2 calls `1`.
local le =
  if config.latencyThreshold == std.floor(config.latencyThreshold) then
    'le=~"%(latencyThreshold)d|%(latencyThreshold)d.0"' % config
  else
    'le="%(latencyThreshold)g"' % config;

local vars = config { le: le };

local rule(record, expr, labels={}) =
  { record: record, expr: expr } + if labels == {} then {} else { labels: labels };

// ---- Rate, errors, duration (red.rules.yml) ----

// Per route from the counters, per job from the routes.
local rateOf(metric, expr) = [
  rule('job_route:%s:rate%s' % [metric, config.window], expr),
  rule(
    'job:%s:rate%s' % [metric, config.window],
    'sum without (route) (job_route:%s:rate%s)\n' % [metric, config.window]
  ),
];

local ratio(level, metric, numerator, denominator) =
  rule('%s:%s' % [level, metric], |||
    %(level)s:%(numerator)s:rate%(window)s
    /
      (%(level)s:%(denominator)s:rate%(window)s > 0) # Without traffic there is no ratio, rather than NaN.
  ||| % { level: level, numerator: numerator, denominator: denominator, window: config.window });

local quantile(level, q) =
  rule(
    '%s:http_request_duration_seconds:p%d_%s' % [level, q * 100, config.window],
    |||
      histogram_quantile(%(q)g, %(level)s_le:http_request_duration_seconds_bucket:rate%(window)s)
      and
        %(level)s:http_requests:rate%(window)s > 0 # Without traffic there is no quantile, rather than NaN.
    ||| % { level: level, q: q, window: config.window }
  );

local red = {
  groups: [
    {
      name: 'red.rules',
      rules:
        rateOf('http_requests', |||
          sum without (instance, method, status) (
            rate(http_requests_total{%(requestSelector)s}[%(window)s])
          )
        ||| % vars)
        + rateOf('http_requests_failed', |||
          sum without (instance, method, status) (
            rate(http_requests_total{%(requestSelector)s, status=~"%(failedStatuses)s"}[%(window)s])
          )
          or
            0 * job_route:http_requests:rate%(window)s # A route that never failed.
        ||| % vars)
        + rateOf('http_request_duration_seconds_sum', |||
          sum without (instance, method) (
            rate(http_request_duration_seconds_sum{%(requestSelector)s}[%(window)s])
          )
        ||| % vars)
        + rateOf('http_request_duration_seconds_count', |||
          sum without (instance, method) (
            rate(http_request_duration_seconds_count{%(requestSelector)s}[%(window)s])
          )
        ||| % vars)
        + [
          rule('job_route_le:http_request_duration_seconds_bucket:rate%(window)s' % vars, |||
            sum without (instance, method) (
              rate(http_request_duration_seconds_bucket{%(requestSelector)s}[%(window)s])
            )
          ||| % vars),
          rule('job_le:http_request_duration_seconds_bucket:rate%(window)s' % vars, |||
            sum without (route) (job_route_le:http_request_duration_seconds_bucket:rate%(window)s)
          ||| % vars),
          rule('job_route:http_requests_in_progress:sum', |||
            sum without (instance, method) (http_requests_in_progress{%(requestSelector)s})
          ||| % vars),
          rule('job:http_requests_in_progress:sum', |||
            sum without (route) (job_route:http_requests_in_progress:sum)
          |||),
        ]
        + std.flattenArrays([
          [
            ratio(
              level,
              'http_requests_failed_per_request:ratio_rate' + config.window,
              'http_requests_failed',
              'http_requests',
            ),
            ratio(
              level,
              'http_request_duration_seconds:mean' + config.window,
              'http_request_duration_seconds_sum',
              'http_request_duration_seconds_count',
            ),
          ] + [quantile(level, q) for q in config.quantiles]
          for level in ['job_route', 'job']
        ])
        + [
          rule('job:http_requests:median%s_rate%s' % [config.traffic.window, config.window], |||
            quantile_over_time(0.5, job:http_requests:rate%s[%s])
          ||| % [config.window, config.traffic.window]),
          // Whether the job can be reached at all: any instance will do. One that was there and has no target any more
          // cannot.
          rule('job:up:max', |||
            max without (instance) (up{%(apiSelector)s})
            or
              0 * max without (instance) (last_over_time(up{%(apiSelector)s}[%(targetHistory)s]))
          ||| % vars),
        ],
    },
  ],
};

// ---- Service level objectives (slo.rules.yml) ----

local objectives = std.objectFields(config.objectives);
local windows = duration.sort(std.set(
  [config.window, config.budgetWindow] + [pair[side] for pair in config.burnRates for side in ['long', 'short']]
));
local isLong(window) = duration.seconds(window) >= duration.seconds(config.longWindow);
local isSlow(window) = duration.seconds(window) >= duration.seconds(config.slowWindow);

// How many windows there are decides how much is written here, so it is written once for all of them. The label `slo`
// says which objective a series is about; rules that combine two of its series match without it and set it again.
local sloRule(slo, name, expr) = rule(name, expr, { slo: slo });

// The requests that an objective is about, and those of them that miss it, by route over the shortest window ...
local byRoute(slo) =
  local expr = {
    availability: {
      requests: 'job_route:http_requests:rate%(window)s\n',
      errors: 'job_route:http_requests_failed:rate%(window)s\n',
    },
    latency: {
      requests: 'job_route:http_request_duration_seconds_count:rate%(window)s\n',
      errors: |||
        clamp_min(
          job_route:http_request_duration_seconds_count:rate%(window)s
          - ignoring (le)
            job_route_le:http_request_duration_seconds_bucket:rate%(window)s{%(le)s},
          0
        )
      |||,
    },
  };
  [
    sloRule(slo, 'job_route:slo_%s:rate%s' % [kind, config.window], expr[slo][kind] % vars)
    for kind in ['requests', 'errors']
  ];
local fromRoutes = [
  rule(
    'job:slo_%s:rate%s' % [kind, config.window],
    'sum without (route) (job_route:slo_%s:rate%s)\n' % [kind, config.window]
  )
  for kind in ['requests', 'errors']
];

// ... over longer ones from the counters themselves, which is exact ...
local fromCounters(slo, window) =
  local here = vars { over: window };
  local expr = {
    availability: {
      requests: |||
        sum without (instance, method, route, status) (
          rate(http_requests_total{%(requestSelector)s}[%(over)s])
        )
      |||,
      errors: |||
        sum without (instance, method, route, status) (
          rate(http_requests_total{%(requestSelector)s, status=~"%(failedStatuses)s"}[%(over)s])
        )
        or ignoring (slo)
          0 * job:slo_requests:rate%(over)s{slo="availability"} # Never failed.
      |||,
    },
    latency: {
      requests: |||
        sum without (instance, method, route) (
          rate(http_request_duration_seconds_count{%(requestSelector)s}[%(over)s])
        )
      |||,
      errors: |||
        clamp_min(
          job:slo_requests:rate%(over)s{slo="latency"}
          - ignoring (slo)
            sum without (instance, method, route, le) (
              rate(http_request_duration_seconds_bucket{%(requestSelector)s, %(le)s}[%(over)s])
            ),
          0
        )
      |||,
    },
  };
  [
    sloRule(slo, 'job:slo_%s:rate%s' % [kind, window], expr[slo][kind] % here)
    for kind in ['requests', 'errors']
  ];

// ... and over days from the rates already recorded: that many samples of every counter would cost too much. These are
// averages over the time that has samples, which is all of the window only once the service is that old.
local fromRates(window) = [
  rule(
    'job:slo_%s:rate%s' % [kind, window],
    'avg_over_time(job:slo_%s:rate%s[%s])\n' % [kind, config.window, window]
  )
  for kind in ['requests', 'errors']
];

// The share of requests that missed the objective. While the job cannot be reached nobody can count requests; that time
// counts as failed, in the share that it has of the window. A window without traffic and without such time says nothing.
local errorRatio(slo, window) =
  sloRule(slo, 'job:slo_errors_per_request:ratio_rate' + window, |||
    1 - avg_over_time(job:up:max[%(window)s])
    + avg_over_time(job:up:max[%(window)s]) * ignoring (slo) (
      job:slo_errors:rate%(window)s{slo="%(slo)s"} / (job:slo_requests:rate%(window)s{slo="%(slo)s"} > 0)
    )
    or
      1 - avg_over_time(job:up:max[%(window)s]) > 0
  ||| % { window: window, slo: slo });

// How many times faster than allowed the error budget is used up; 1 uses it up exactly within its window.
local burnRate(slo, window) =
  sloRule(
    slo,
    'job:slo_errors_per_request:burn_rate' + window,
    'job:slo_errors_per_request:ratio_rate%s{slo="%s"} / (1 - %g)\n' % [window, slo, config.objectives[slo]]
  );

local each(rulesOf) = std.flattenArrays([rulesOf(slo) for slo in objectives]);
local sloRules(window) =
  (
    if window == config.window then each(byRoute) + fromRoutes
    else if isLong(window) then fromRates(window)
    else each(function(slo) fromCounters(slo, window))
  ) + each(function(slo) [errorRatio(slo, window), burnRate(slo, window)]);

local slo = {
  groups: [
    {
      name: 'slo.rules',
      rules: std.flattenArrays([sloRules(window) for window in windows if !isSlow(window)]),
    },
    {
      name: 'slo_slow.rules',
      interval: config.slowInterval,
      rules:
        std.flattenArrays([sloRules(window) for window in windows if isSlow(window)])
        + [
          // What is left for the whole window: what was burnt in the part of it that is known, which is little of it for a
          // new service, and half of it where Prometheus keeps 15 days.
          rule('job:slo_error_budget:remaining_ratio' + config.budgetWindow, |||
            1 - job:slo_errors_per_request:burn_rate%(budgetWindow)s
            * ignoring (slo) group_left ()
              ((time() - min_over_time(timestamp(job:up:max)[%(budgetWindow)s:1m])) / %(seconds)d)
          ||| % vars { seconds: duration.seconds(config.budgetWindow) }),
        ],
    },
  ],
};

{
  'red.rules.yml': red,
  'slo.rules.yml': slo,
}
