// The promises: what was kept, how much may still fail, and how fast that is used up.
local config = import '../config.libsonnet';
local dashboard = import '../dashboard.libsonnet';
local panels = (import '../panels.libsonnet').slo;
local queries = (import '../queries.libsonnet').slo;
local variables = import '../variables.libsonnet';

local objective(name) =
  dashboard.row(panels.title(name), [
    panels.achieved(name, queries.achieved(name)),
    panels.budgetLeft(name, queries.budgetLeft(name)),
    panels.burnPairs(name, queries.burnPairs(name)),
    panels.budgetOverTime(name, queries.budgetLeft(name)),
    panels.burnRates(name, queries.burnRates(name)),
    panels.spentByRoute(name, queries.spentByRoute(name)),
  ]);

dashboard.new(
  'slo',
  'Service level objectives of the users API: error budgets and what spends them.',
  [variables.datasource, variables.job],
  [objective(name) for name in std.objectFields(config.objectives)]
  + [dashboard.row('What these figures rest on', [panels.history(queries.history)])],
  refresh='1m',
  from='now-6h',
)
