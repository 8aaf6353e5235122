// Every number and name that rules, alerts and dashboards share, each written once. docs/design.md has the reasons that
// do not fit here. Change something, then run `make rules dashboards`.
{
  // ---- What is watched ----

  // The scrape job of the API in prometheus.yml.
  apiJob: 'api',
  pushgatewayJob: 'pushgateway',
  // Routes that only machines ask for. They are quick and many, and would water down every average.
  probes: '/health|/ready',
  // What selects the requests that count.
  apiSelector: 'job="%s"' % self.apiJob,
  requestSelector: '%s, route!~"%s"' % [self.apiSelector, self.probes],

  // ---- Where the links of an alert lead ----

  grafanaUrl: 'http://localhost:3000',
  runbookUrl: 'https://github.com/api-monitoring/api-monitoring/blob/main/docs/runbook.md',

  // ---- Rate, errors, duration ----

  // Five minutes hold twenty scrapes: enough for a rate that one late scrape does not bend.
  window: '5m',
  quantiles: [0.5, 0.95, 0.99],
  // The one of them that has a threshold.
  alertQuantile: 0.95,
  failedStatuses: '5..',

  // The origin's thresholds.
  errorRatio: { warning: 0.02, critical: 0.05 },
  requestsInProgress: { warning: 2, critical: 5, alert: 10 },
  // Seconds. Also the latency objective, and a bucket of the histogram, so that nothing is interpolated at it.
  latencyThreshold: 0.5,

  // This many new starts of a process within that time are a crash loop, in which it is never down for long.
  restarts: { number: 3, window: '10m' },

  // Fewer failures than this within a rule's window are no reason to wake anybody, whatever share they are: 3 failed
  // requests out of 3 are 100 %. Slow burners reach it in a longer window.
  minFailures: 10,
  // The p95 of fewer requests is just the slowest one.
  minRequests: 20,

  // Traffic now against the median of the hours before: one odd scrape does not move a median.
  traffic: {
    window: '6h',
    // Samples must reach back into the oldest part of the window, or the service is new.
    oldest: '1h',
    // Requests per second. A service with a lower median is idle: any request would be a spike.
    idle: 0.1,
    spike: 3,
    drop: 0.25,
  },

  // ---- Service level objectives ----

  objectives: {
    // Requests that do not fail, of all.
    availability: 0.999,
    // Requests answered within `latencyThreshold`, of all.
    latency: 0.99,
  },
  // The time that an error budget is for.
  budgetWindow: '30d',
  // Multi-window, multi-burn-rate alerts (The Site Reliability Workbook, chapter 5): both windows must burn the budget
  // this many times too fast; the short one ends the alert soon after the trouble.
  burnRates: [
    { factor: 14.4, long: '1h', short: '5m', wait: '2m', severity: 'critical' },
    { factor: 6, long: '6h', short: '30m', wait: '15m', severity: 'critical' },
    { factor: 3, long: '1d', short: '2h', wait: '1h', severity: 'warning' },
    { factor: 1, long: '3d', short: '6h', wait: '3h', severity: 'warning' },
  ],
  // From here on a window is taken from the recorded rates of the shortest instead of from every counter.
  longWindow: '1d',
  // From here on a window is evaluated by `slowInterval`: its value hardly moves within it.
  slowWindow: '2h',
  slowInterval: '1m',

  // ---- Batch jobs and the scrape ----

  // How long ago the API may have had a target, for it to count as down when it has none.
  targetHistory: '1d',
  // How far back a job's last success is looked for where the gateway has lost it, and the first start of a job that
  // never succeeded.
  jobHistory: '7d',
  // Each scrape job's `sample_limit` in prometheus.yml, and the share of it that is worth a ticket: at the limit
  // itself Prometheus drops the whole scrape.
  sampleLimit: 10000,
  sampleShare: 0.8,
}
