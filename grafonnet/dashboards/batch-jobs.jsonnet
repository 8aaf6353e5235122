// Whatever was pushed to the Pushgateway: any job, none of them named here.
local dashboard = import '../dashboard.libsonnet';
local panels = (import '../panels.libsonnet').jobs;
local queries = (import '../queries.libsonnet').jobs;
local variables = import '../variables.libsonnet';

dashboard.new(
  'jobs',
  'Short-lived jobs, as they pushed how they went.',
  [variables.datasource, variables.batchJob],
  [
    panels[name](queries[name])
    for name in [
      'known',
      'running',
      'failed',
      'overdue',
      'rejected',
      'gateway',
      'lastRuns',
      'results',
      'runningOverTime',
      'durations',
      'successAge',
      'importedRows',
      'pushAge',
      'servicePushes',
    ]
  ],
  annotated=['alerts'],
)
