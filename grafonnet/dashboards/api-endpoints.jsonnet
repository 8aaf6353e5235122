// One route, or several, in detail.
local dashboard = import '../dashboard.libsonnet';
local panels = import '../panels.libsonnet';
local queries = import '../queries.libsonnet';
local variables = import '../variables.libsonnet';

local draw(names) = [panels.endpoints[name](queries.endpoints[name]) for name in names];

dashboard.new(
  'endpoints',
  'Each route of the users API: choose one or several above.',
  [variables.datasource, variables.job, variables.instance, variables.probes, variables.route],
  draw([
    'summary',
    'rateByRoute',
    'errorsByRoute',
    'durationHeatmap',
    'latencyPercentiles',
    'p95ByRoute',
    'statusesByRoute',
  ])
  + [
    dashboard.row(
      'Over hours and days: all instances, without probes, from recorded rules',
      draw(['ratePattern', 'latencyPattern', 'recordedPercentiles', 'recordedPercentilesByRoute', 'recordedMean']),
    ),
  ],
)
