// PromQL, by panel. Nothing here knows how it will look.
//
// Every ratio is a sum over a sum, every quantile keeps `le`, and absence is turned into 0 only where it means 0.
local config = import 'config.libsonnet';
local g = import 'g.libsonnet';
local prometheus = g.query.prometheus;

local target(expr, legend) =
  prometheus.new('${datasource}', expr)
  + prometheus.withLegendFormat(legend)
  + prometheus.withRange(true)
  + prometheus.withInstant(false);
// One value now, instead of one at each step.
local now(expr, legend) = target(expr, legend) + prometheus.withRange(false) + prometheus.withInstant(true);
local table(expr) = now(expr, '__auto') + prometheus.withFormat('table');
local lettered(targets) =
  std.mapWithIndex(function(i, t) t + prometheus.withRefId(std.char(std.codepoint('A') + i)), targets);

local selectors = {
  service: 'job=~"$job", instance=~"$instance"',
  requests: self.service + ', route=~"$route", route!~"$probes"',
  // Recorded rules are sums over the instances.
  routes: 'job=~"$job", route=~"$route", route!~"$probes"',
  window: config.window,
  failed: config.failedStatuses,
};

// Shows only what happened within the time range, or else one line at 0 that says so: most of the known label values
// never occur, and would bury those that do.
local occurred(expr, by, total, nothing) = |||
  %(expr)s
  and on (%(by)s)
    sum by (%(by)s) (increase(%(total)s[$__range] @ end())) > 0
  or on ()
    label_replace(0 * sum(rate(%(total)s[$__rate_interval])), "%(label)s", "%(nothing)s", "", "")
||| % {
  expr: expr,
  by: std.join(', ', by),
  // The last of the labels is the one that the legend ends with.
  label: by[std.length(by) - 1],
  total: total,
  nothing: nothing,
};

local requests = 'http_requests_total{%(requests)s}' % selectors;
local errors = 'api_errors_total{%(service)s}' % selectors;

// `comparison` of NaN, which a quantile of nothing is, is false: no point instead of a wrong one.
local quantile(q, by='', window='$__rate_interval') =
  'histogram_quantile(%g, sum by (%sle) (rate(http_request_duration_seconds_bucket{%s}[%s]))) >= 0'
  % [q, by, selectors.requests, window];

local failedShare(by, window) = |||
  (
    sum%(by)s (rate(http_requests_total{%(requests)s, status=~"%(failed)s"}[%(over)s]))
    or
      0 * sum%(by)s (rate(http_requests_total{%(requests)s}[%(over)s])) # Never failed.
  )
  /
    (sum%(by)s (rate(http_requests_total{%(requests)s}[%(over)s])) > 0)
||| % selectors { by: by, over: window };

local mean(window) = |||
  sum by (route) (rate(http_request_duration_seconds_sum{%(requests)s}[%(over)s]))
  /
    (sum by (route) (rate(http_request_duration_seconds_count{%(requests)s}[%(over)s])) > 0)
||| % selectors { over: window };

local overview = {
  requestRate: [
    target(
      occurred(
        'sum by (method, route) (rate(%s[%s]))' % [requests, config.window],
        ['method', 'route'],
        requests,
        'no requests',
      ),
      '{{method}} {{route}}',
    ),
  ],
  activeRequests: [now('sum(http_requests_in_progress{%(requests)s})' % selectors, 'active')],
  latencyPercentiles: [target(quantile(q), 'P%d' % (q * 100)) for q in config.quantiles],
  errorRate: [target(failedShare('', config.window), 'failed')],
  requestsByStatusCode: [
    target(
      occurred('sum by (status) (rate(%s[$__rate_interval]))' % requests, ['status'], requests, 'no requests'),
      '{{status}}',
    ),
  ],
  errorsByType: [
    target(
      occurred('sum by (error_type) (rate(%s[$__rate_interval]))' % errors, ['error_type'], errors, 'no errors'),
      '{{error_type}}',
    ),
  ],
  requestDistribution: [now('sum by (route) (increase(%s[$__range])) > 0' % requests, '{{route}}')],
  averageResponseTime: [now('sort_desc(\n%s)\n' % mean('$__range'), '{{route}}')],
};

local users = {
  // Replicas share one store, and each of them counts all of it.
  users: [target('max by (job) (api_users{%(service)s})' % selectors, '{{job}}')],
  usersChanged: [
    target('sum(rate(api_users_registered_total{%(service)s}[$__rate_interval]))' % selectors, 'created'),
    target('sum(rate(api_users_deleted_total{%(service)s}[$__rate_interval]))' % selectors, 'deleted'),
  ],
  legacyActiveUsers: [target('app_active_users{%(service)s}' % selectors, '{{instance}}')],
  legacyCpuUsage: [target('app_cpu_usage_percent{%(service)s}' % selectors, '{{instance}}')],
  legacyRequests: [target('sum by (instance) (rate(app_requests_total{%(service)s}[$__rate_interval]))' % selectors, '{{instance}}')],
};

local process = {
  cpu: [target('rate(process_cpu_seconds_total{%(service)s}[%(window)s])' % selectors, '{{instance}}')],
  memory: [target('process_resident_memory_bytes{%(service)s}' % selectors, '{{instance}}')],
  fileDescriptors: [target('process_open_fds{%(service)s}' % selectors, '{{instance}}')],
  uptime: [now('time() - process_start_time_seconds{%(service)s}' % selectors, '{{instance}}')],
};

local scrape = {
  up: [target('up{%(service)s}' % selectors, '{{instance}}')],
  scrapeDuration: [target('scrape_duration_seconds{%(service)s}' % selectors, '{{instance}}')],
  series: [target('scrape_samples_post_metric_relabeling{%(service)s}' % selectors, '{{instance}}')],
  // The value is when the process started, in milliseconds, as dates are drawn from.
  versions: [
    table(
      |||
        1000 * api_build_info{%(service)s}
        * on (job, instance) group_left ()
          process_start_time_seconds{%(service)s}
      ||| % selectors
    ),
  ],
};

local pattern(expr) = [
  target(expr % { offset: '' }, 'now'),
  target(expr % { offset: ' offset 1d' }, 'a day before'),
  target(expr % { offset: ' offset 1w' }, 'a week before'),
];

local endpoints = {
  rateByRoute: [
    target(
      occurred('sum by (route) (rate(%s[$__rate_interval]))' % requests, ['route'], requests, 'no requests'),
      '{{route}}',
    ),
  ],
  errorsByRoute: [target(failedShare(' by (route)', '$__rate_interval'), '{{route}}')],
  durationHeatmap: [
    target(
      'sum by (le) (rate(http_request_duration_seconds_bucket{%(requests)s}[$__rate_interval]))' % selectors,
      '{{le}}',
    )
    + prometheus.withFormat('heatmap'),
  ],
  latencyPercentiles: overview.latencyPercentiles,
  p95ByRoute: [target(quantile(config.alertQuantile, 'route, '), '{{route}}')],
  statusesByRoute: [
    target(
      occurred(
        'sum by (route, status) (rate(%s[$__rate_interval]))' % requests,
        ['route', 'status'],
        requests,
        'no requests',
      ),
      '{{route}} {{status}}',
    ),
  ],
  summary: [
    table('sum by (route) (increase(%s[$__range])) > 0' % requests),
    table(failedShare(' by (route)', '$__range')),
    table(mean('$__range')),
  ] + [table(quantile(q, 'route, ', '$__range')) for q in config.quantiles],
  recordedPercentiles: [
    target('job:http_request_duration_seconds:p%d_%s{job=~"$job"}' % [q * 100, config.window], '{{job}} P%d' % (q * 100))
    for q in config.quantiles
  ],
  recordedPercentilesByRoute: [
    target(
      'job_route:http_request_duration_seconds:p%d_%s{%s}' % [q * 100, config.window, selectors.routes],
      '{{route}} P%d' % (q * 100),
    )
    for q in config.quantiles
  ],
  recordedMean: [
    target('job_route:http_request_duration_seconds:mean%(window)s{%(routes)s}' % selectors, '{{route}}'),
  ],
  ratePattern: pattern('sum(job_route:http_requests:rate%(window)s{%(routes)s}%%(offset)s)' % selectors),
  latencyPattern: pattern(
    |||
      sum(job_route:http_request_duration_seconds_sum:rate%(window)s{%(routes)s}%%(offset)s)
      /
        (sum(job_route:http_request_duration_seconds_count:rate%(window)s{%(routes)s}%%(offset)s) > 0)
    ||| % selectors
  ),
};

local objective(slo) = { slo: slo, budget: config.budgetWindow, window: config.window };
local slo = {
  achieved(slo):: [
    target(
      '1 - job:slo_errors_per_request:ratio_rate%(budget)s{job=~"$job", slo="%(slo)s"}' % objective(slo),
      '{{job}}',
    ),
  ],
  budgetLeft(slo):: [
    target('job:slo_error_budget:remaining_ratio%(budget)s{job=~"$job", slo="%(slo)s"}' % objective(slo), '{{job}}'),
  ],
  burnRates(slo):: [
    target(
      'job:slo_errors_per_request:burn_rate%s{job=~"$job", slo="%s"}' % [pair.long, slo],
      '{{job}} over %s' % pair.long,
    )
    for pair in config.burnRates
  ],
  // As the alert compares, by requests alone. Both windows must be over the limit, so the lower of the two decides.
  burnPairs(slo):: [
    now(
      |||
        (
          job:slo_errors:rate%(long)s{%(labels)s} / (job:slo_requests:rate%(long)s{%(labels)s} > 0)
          < job:slo_errors:rate%(short)s{%(labels)s} / (job:slo_requests:rate%(short)s{%(labels)s} > 0)
          or
            job:slo_errors:rate%(short)s{%(labels)s} / (job:slo_requests:rate%(short)s{%(labels)s} > 0)
        )
        / (1 - %(objective)g) / %(factor)g
      ||| % pair { labels: 'job=~"$job", slo="%s"' % slo, objective: config.objectives[slo] },
      '{{job}} %s and %s' % [pair.long, pair.short],
    )
    for pair in config.burnRates
  ],
  spentByRoute(slo):: [
    table(
      |||
        sort_desc(
          sum by (route) (sum_over_time(job_route:slo_errors:rate%(window)s{job=~"$job", slo="%(slo)s"}[$__range]))
          / on () group_left ()
            (sum(sum_over_time(job_route:slo_errors:rate%(window)s{job=~"$job", slo="%(slo)s"}[$__range])) > 0)
        ) > 0
      ||| % objective(slo)
    ),
  ],
  history: [
    now(
      'time() - min_over_time(timestamp(job:up:max{job=~"$job"})[%(budget)s:1m])' % objective(''),
      '{{job}}',
    ),
  ],
};

local jobs = {
  local selected = 'job=~"$batch_job"',
  local overdue = |||
    (
      time() - last_over_time(batch_job_last_success_timestamp_seconds{%(selected)s}[%(history)s])
      or
        # It never succeeded: since its first start that is known.
        time() - min_over_time(batch_job_last_start_timestamp_seconds{%(selected)s}[%(history)s])
    )
  ||| % { selected: selected, history: config.jobHistory },
  local expected = 'batch_job_expected_interval_seconds{%s}' % selected,

  // A count of nothing is 0: no group with this property is exactly that.
  local count(expr, legend) = [now('count(%s) or vector(0)' % expr, legend)],

  // A job may push under several groups.
  known: count('count by (job) (batch_job_last_start_timestamp_seconds{%s})' % selected, 'jobs'),
  running: count('count by (job) (batch_job_running{%s} == 1)' % selected, 'running'),
  failed: count('count by (job) (batch_job_last_exit_code{%s} != 0)' % selected, 'failed'),
  overdue: count('count by (job) (\n%s> %s\n)' % [overdue, expected], 'overdue'),
  rejected: count('push_failure_time_seconds{%s} > push_time_seconds{%s}' % [selected, selected], 'rejected'),
  gateway: [now('min(up{job="%s"})' % config.pushgatewayJob, 'gateway')],

  lastRuns: [
    table('batch_job_last_exit_code{%s}' % selected),
    table('batch_job_running{%s}' % selected),
    table('time() - batch_job_last_end_timestamp_seconds{%s}' % selected),
    table('time() - batch_job_last_success_timestamp_seconds{%s}' % selected),
    table(expected),
    table('batch_job_last_duration_seconds{%s}' % selected),
    table('sum without (mode) (batch_job_last_cpu_seconds{%s})' % selected),
    table('batch_job_last_max_resident_memory_bytes{%s}' % selected),
  ],
  results: [target('batch_job_last_exit_code{%s}' % selected, '{{job}} {{instance}}')],
  runningOverTime: [target('batch_job_running{%s}' % selected, '{{job}} {{instance}}')],
  successAge: [target('%s/ %s' % [overdue, expected], '{{job}} {{instance}}')],
  durations: [target('batch_job_last_duration_seconds{%s}' % selected, '{{job}} {{instance}}')],
  importedRows: [now('sum by (job, result) (import_rows_total{%s})' % selected, '{{job}} {{result}}')],
  // 0 is a group of which no push was ever taken.
  pushAge: [target('time() - (push_time_seconds{%s} > 0)' % selected, '{{job}} {{instance}}')],

  servicePushes: [
    // What came by the gateway: a service that is scraped as well is there twice.
    target('sum by (result) (rate(push_attempts_total{job!="%s"}[$__rate_interval]))' % config.apiJob, '{{result}}'),
  ],
};

local annotations = {
  // A version that was not there five minutes before, while another was.
  versions: |||
    count by (job, version, revision) (api_build_info{job=~"$job"})
    unless
      count by (job, version, revision) (api_build_info{job=~"$job"} offset %(window)s)
    and on (job)
      count by (job) (api_build_info{job=~"$job"} offset %(window)s)
  ||| % selectors,
  alerts: 'ALERTS{alertstate="firing"}',
};

local each(panels) = std.mapWithKey(function(_, targets) lettered(targets), panels);

{
  overview: each(overview),
  users: each(users),
  process: each(process),
  scrape: each(scrape),
  endpoints: each(endpoints),
  jobs: each(jobs),
  // By objective.
  slo:: {
    achieved(name):: lettered(slo.achieved(name)),
    budgetLeft(name):: lettered(slo.budgetLeft(name)),
    burnRates(name):: lettered(slo.burnRates(name)),
    burnPairs(name):: lettered(slo.burnPairs(name)),
    spentByRoute(name):: lettered(slo.spentByRoute(name)),
    history:: lettered(slo.history),
  },
  annotations: annotations,
}
