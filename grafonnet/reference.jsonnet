// Renders docs/dashboards.md from the rendered dashboards: every panel with its words and its queries.
local dashboards = [
  import 'rendered/api-monitoring.json',
  import 'rendered/api-endpoints.json',
  import 'rendered/api-slo.json',
  import 'rendered/batch-jobs.json',
];

local trimmed(text) = std.stripChars(text, '\n');

local query(target) = '```promql\n%s\n```\n' % trimmed(target.expr);

local panel(p) =
  if p.type == 'row' then
    '## %s\n' % p.title
  else
    '### %s\n\n%s\n\n%s' % [p.title, trimmed(p.description), std.join('\n', [query(t) for t in p.targets])];

local variable(v) = '| %s | `$%s` | %s |' % [std.get(v, 'label', v.name), v.name, std.get(v, 'description', '')];

local dashboard(d) = |||
  # %(title)s

  %(description)s <http://localhost:3000/d/%(uid)s>

  | choice | variable | |
  |---|---|---|
  %(variables)s

  %(panels)s
||| % d {
  variables: std.join('\n', [variable(v) for v in d.templating.list]),
  panels: std.join('\n', [panel(p) for p in d.panels]),
};

|||
  <!-- Rendered by `make docs` from grafonnet/rendered; change grafonnet/*.libsonnet. -->

  Every panel of the dashboards: what it shows, what is good, what to do otherwise, and its queries. `$job`, `$route` and
  the like are the choices at the top of a dashboard; `$__rate_interval` is four scrape intervals, or more on a wide
  range; `$__range` is the time range itself.

||| + std.join('\n', [dashboard(d) for d in dashboards])
