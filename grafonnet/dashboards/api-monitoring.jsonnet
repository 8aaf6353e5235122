// The main dashboard: rate, errors and duration first, then what lies behind them.
local dashboard = import '../dashboard.libsonnet';
local panels = import '../panels.libsonnet';
local queries = import '../queries.libsonnet';
local variables = import '../variables.libsonnet';

local draw(group, names) = [panels[group][name](queries[group][name]) for name in names];

dashboard.new(
  'main',
  'Rate, errors and duration of the users API, and of the process behind it.',
  [variables.datasource, variables.job, variables.instance, variables.probes, variables.route],
  draw('overview', [
    'requestRate',
    'activeRequests',
    'latencyPercentiles',
    'errorRate',
    'requestsByStatusCode',
    'errorsByType',
    'requestDistribution',
    'averageResponseTime',
  ])
  + [
    dashboard.row(
      'Users',
      draw('users', ['users', 'usersChanged', 'legacyActiveUsers', 'legacyCpuUsage', 'legacyRequests'])
    ),
    dashboard.row('Process', draw('process', ['cpu', 'memory', 'fileDescriptors', 'uptime'])),
    dashboard.row('Scrape health', draw('scrape', ['up', 'scrapeDuration', 'series', 'versions'])),
  ],
  refresh='5s',
  from='now-15m',
)
