// What the dashboards share among themselves, beside the numbers that they share with rules and alerts.
(import '../prometheus/config.libsonnet') {
  // Fixed, so that links survive; each is also the file's name.
  uids: {
    main: 'api-monitoring',
    endpoints: 'api-endpoints',
    slo: 'api-slo',
    jobs: 'batch-jobs',
  },
  tag: 'api-monitoring',
}
