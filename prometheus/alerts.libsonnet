// The alerts. `critical` pages a person, `warning` makes a ticket. Links are added below, by machine, so that none is
// forgotten or points elsewhere.
local config = import 'config.libsonnet';
local duration = import 'duration.libsonnet';

assert std.member(config.quantiles, config.alertQuantile) : 'the quantile of the alert must be recorded';

local vars = config {
  quantile: config.alertQuantile * 100,
  seconds: duration.seconds(config.window),
  errorRatioLimit: config.errorRatio.critical,
  activeLimit: config.requestsInProgress.alert,
  baseline: 'job:http_requests:median%s_rate%s' % [config.traffic.window, config.window],
  idle: config.traffic.idle,
  oldest: config.traffic.oldest,
  // The oldest part of the window ends this long ago.
  before: '%dh' % ((duration.seconds(config.traffic.window) - duration.seconds(config.traffic.oldest)) / 3600),
};

local alert(name, severity, wait, expr, summary, description, dashboard='api-monitoring', labels={}) = {
  alert: name,
  expr: expr,
  [if wait != null then 'for']: wait,
  labels: { severity: severity } + labels,
  annotations: {
    summary: summary,
    description: description,
    runbook_url: '%s#%s' % [config.runbookUrl, std.asciiLower(name)],
    dashboard_url: '%s/d/%s' % [config.grafanaUrl, dashboard],
  },
};

// Traffic against the hours before: never on a service that is new, or idle.
local traffic(name, comparison, factor, summary) =
  alert(
    name,
    'warning',
    '10m',
    |||
      job:http_requests:rate%(window)s %(comparison)s %(factor)g * %(baseline)s
      and
        %(baseline)s > %(idle)g # Not idle.
      and
        present_over_time(job:http_requests:rate%(window)s[%(oldest)s] offset %(before)s) # Not new.
    ||| % vars { comparison: comparison, factor: factor },
    summary,
    (
      'It gets {{ $value | printf "%%.2f" }} requests/s; the median of the last %s is '
      + '{{ with printf "%s{job=\'%%s\'}" $labels.job | query }}{{ . | first | value | printf "%%.2f" }}{{ end }}.'
    ) % [config.traffic.window, vars.baseline],
  );

// How many requests missed the objective within a window. The rates over days are averages over the time that has
// samples; from them, 3 failures in a service's first hour would be 72 a day. Each request is in one of the recorded rates
// that stand a window apart.
local failures(slo, window) =
  if duration.seconds(window) < duration.seconds(config.longWindow) then
    'round(job:slo_errors:rate%s{slo="%s"} * %d)' % [window, slo, duration.seconds(window)]
  else
    'round(sum_over_time(job:slo_errors:rate%(short)s{slo="%(slo)s"}[%(window)s:%(short)s]) * %(seconds)d)'
    % { slo: slo, window: window, short: config.window, seconds: duration.seconds(config.window) };

local errorBudgetBurn(slo, pair) =
  local limits = pair {
    slo: slo,
    objective: config.objectives[slo],
    failures: failures(slo, pair.long),
    minFailures: config.minFailures,
    budgetDays: duration.seconds(config.budgetWindow) / 86400,
    lasts: duration.seconds(config.budgetWindow) / pair.factor / 86400,
  };
  alert(
    'ApiErrorBudgetBurn',
    pair.severity,
    pair.wait,
    |||
      # By requests alone: time in which none could come is ApiDown's to tell.
      job:slo_errors:rate%(long)s{slo="%(slo)s"}
      / (job:slo_requests:rate%(long)s{slo="%(slo)s"} > 0) / (1 - %(objective)g) > %(factor)g
      and
        job:slo_errors:rate%(short)s{slo="%(slo)s"}
        / (job:slo_requests:rate%(short)s{slo="%(slo)s"} > 0) / (1 - %(objective)g) > %(factor)g
      and
        %(failures)s >= %(minFailures)d
    ||| % limits,
    '{{ $labels.job }} burns the error budget of its {{ $labels.slo }} objective',
    (
      'Over the last %(long)s its {{ $labels.slo }} error budget was used {{ $value | printf "%%.1f" }} times as fast as '
      + 'allowed. The limit is %(factor)g, at which the budget of %(budgetDays)d days is gone within %(lasts).3g days.'
    ) % limits,
    'api-slo',
    { slo: slo, window: pair.long },
  );

local red = [
  alert(
    'ApiDown',
    'critical',
    '1m',
    |||
      up{%(apiSelector)s} == 0
      or
        absent(up{%(apiSelector)s})
      or # A crash loop, in which it is up now and then.
        changes(process_start_time_seconds{%(apiSelector)s}[%(over)s]) >= %(starts)d
    ||| % vars { over: config.restarts.window, starts: config.restarts.number },
    '{{ with $labels.instance }}{{ . }}{{ else }}Every instance{{ end }} of the API is down',
    'Prometheus cannot scrape {{ with $labels.instance }}it{{ else }}any instance of the API{{ end }}: it does not run, '
    + 'cannot be reached, answers /metrics too late or with too much, or starts again and again.',
  ),
  alert(
    'HighErrorRate',
    'critical',
    '5m',
    |||
      job:http_requests_failed_per_request:ratio_rate%(window)s > %(errorRatioLimit)g
      and
        round(job:http_requests_failed:rate%(window)s * %(seconds)d) >= %(minFailures)d
    ||| % vars,
    '{{ $labels.job }} fails {{ $value | humanizePercentage }} of its requests',
    (
      '{{ $value | humanizePercentage }} of the requests of the last %s were answered with a 5xx status; the limit is '
      + '%g %%.'
    ) % [config.window, config.errorRatio.critical * 100],
  ),
  alert(
    'HighLatencyP95',
    'warning',
    '5m',
    |||
      job:http_request_duration_seconds:p%(quantile)d_%(window)s > %(latencyThreshold)g
      and
        round(job:http_requests:rate%(window)s * %(seconds)d) >= %(minRequests)d
    ||| % vars,
    '{{ $labels.job }} is slow: the p%d is {{ $value | humanizeDuration }}' % vars.quantile,
    '%g %% of the requests of the last %s took longer than {{ $value | humanizeDuration }}; the limit is %d ms.'
    % [100 - vars.quantile, config.window, config.latencyThreshold * 1000],
  ),
  alert(
    'TooManyActiveRequests',
    'warning',
    '2m',
    'job:http_requests_in_progress:sum > %(activeLimit)d\n' % vars,
    '{{ $labels.job }} handles {{ $value }} requests at once',
    '{{ $value }} requests are being handled at this moment; the limit is %d. They come faster than they are answered.'
    % config.requestsInProgress.alert,
  ),
  traffic('TrafficSpike', '>', config.traffic.spike, '{{ $labels.job }} gets far more requests than usual'),
  traffic('TrafficDrop', '<', config.traffic.drop, '{{ $labels.job }} gets far fewer requests than usual'),
] + [errorBudgetBurn(slo, pair) for pair in config.burnRates for slo in std.objectFields(config.objectives)] + [
  alert(
    'MetricsCardinalityHigh',
    'warning',
    '5m',
    'scrape_samples_post_metric_relabeling > %g * %d\n' % [config.sampleShare, config.sampleLimit],
    '{{ $labels.instance }} of {{ $labels.job }} exposes {{ $value }} series',
    (
      'A scrape of {{ $labels.instance }} brings {{ $value }} series. Above %d Prometheus drops the whole scrape, and '
      + 'the target counts as down.'
    ) % config.sampleLimit,
  ),
];

local jobs = [
  alert(
    'BatchJobFailed',
    'warning',
    null,
    'batch_job_last_exit_code != 0\n',
    'The batch job {{ $labels.job }} failed',
    'Its last run ended with exit code {{ $value }} (124: it took too long; 126, 127: it could not be run; 128+n: '
    + 'ended by signal n).',
    'batch-jobs',
  ),
  alert(
    'BatchJobOverdue',
    'critical',
    // A run may take a few minutes longer than the one before.
    '5m',
    |||
      (
        # The latest success that is known: a gateway that lost its state has it no more.
        time() - last_over_time(batch_job_last_success_timestamp_seconds[%(jobHistory)s])
        or
          # It never succeeded: since its first start that is known.
          time() - min_over_time(batch_job_last_start_timestamp_seconds[%(jobHistory)s])
      )
      >
        batch_job_expected_interval_seconds
    ||| % vars,
    'The batch job {{ $labels.job }} is overdue',
    'It has not succeeded for {{ $value | humanizeDuration }}, longer than it should take from one success to the next '
    + '(batch_job_expected_interval_seconds).',
    'batch-jobs',
  ),
  alert(
    'PushgatewayDown',
    // Without it nobody learns of an overdue job.
    'critical',
    '5m',
    |||
      up{job="%(pushgatewayJob)s"} == 0
      or
        absent(up{job="%(pushgatewayJob)s"})
    ||| % vars,
    'The Pushgateway is down',
    'Prometheus cannot scrape {{ with $labels.instance }}{{ . }}{{ else }}any gateway{{ end }}. Jobs cannot tell how they '
    + 'went, and no overdue or failed job is noticed.',
    'batch-jobs',
  ),
  alert(
    'PushRejected',
    'warning',
    null,
    'push_failure_time_seconds > push_time_seconds\n',
    'The Pushgateway rejects what {{ $labels.job }} pushes',
    'Its last push, at {{ $value | humanizeTimestamp }}, contradicted what the gateway holds and was thrown away.',
    'batch-jobs',
  ),
];

{
  'red.alerts.yml': { groups: [{ name: 'red.alerts', rules: red }] },
  'jobs.alerts.yml': { groups: [{ name: 'jobs.alerts', rules: jobs }] },
}
