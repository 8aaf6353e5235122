// What all dashboards have in common: identity, links among them, annotations, and the grid.
local config = import 'config.libsonnet';
local g = import 'g.libsonnet';
local queries = import 'queries.libsonnet';

local annotation = g.dashboard.annotation;
local link = g.dashboard.link;

local titles = {
  main: 'API Monitoring Dashboard',
  endpoints: 'API Endpoints',
  slo: 'API Service Level Objectives',
  jobs: 'Batch Jobs',
};

local prometheusAnnotation(name, colour, expr, title, text) =
  annotation.withName(name)
  + annotation.withEnable(true)
  + annotation.withIconColor(colour)
  + annotation.withDatasource({ type: 'prometheus', uid: '${datasource}' })
  // Fields of the Prometheus data source, which the library's type does not know.
  + { expr: expr, titleFormat: title, textFormat: text, step: '30s' };

local annotations = {
  versions: prometheusAnnotation(
    'Version changes',
    'blue',
    queries.annotations.versions,
    '{{job}} {{version}}',
    'Version {{version}}, revision {{revision}}, appeared.'
  ),
  alerts: prometheusAnnotation(
    'Firing alerts',
    'red',
    queries.annotations.alerts,
    '{{alertname}}',
    '{{alertname}} ({{severity}}) is firing for {{job}}.'
  ),
};

// A link keeps the time range and the choices that both dashboards have.
local linkTo(name) =
  link.link.new(titles[name], '/d/' + config.uids[name])
  + link.link.options.withKeepTime(true)
  + link.link.options.withIncludeVars(true);

// Puts panels side by side while they fit into the 24 columns, then begins a new line below the tallest. (The library's
// `wrapPanels` takes the height of the next panel for that of the line, and leaves the panels of an open row inside it,
// where Grafana does not show them.)
local place(panels) =
  local start = { x: 0, y: 0, height: 0, placed: [] };
  local newLine(at) = at { x: 0, y: at.y + at.height, height: 0 };
  local put(at, panel) =
    if panel.type == 'row' then
      local line = newLine(at);
      local header = panel { gridPos: { x: 0, y: line.y, w: 24, h: 1 } };
      std.foldl(
        put,
        panel.panels,
        line { y: line.y + 1, placed: at.placed + [header { panels: [] }] }
      )
    else
      local size = panel.gridPos;
      local line = if at.x + size.w > 24 then newLine(at) else at;
      line {
        x: line.x + size.w,
        height: std.max(line.height, size.h),
        placed: line.placed + [panel { gridPos+: { x: line.x, y: line.y } }],
      };
  std.foldl(put, panels, start).placed;

{
  // Panels under a heading.
  row(title, panels)::
    g.panel.row.new(title)
    + g.panel.row.withCollapsed(false)
    + g.panel.row.withPanels(panels),

  new(name, description, variables, panels, refresh='30s', from='now-1h', annotated=['versions', 'alerts'])::
    g.dashboard.new(titles[name])
    + g.dashboard.withUid(config.uids[name])
    + g.dashboard.withDescription(description)
    + g.dashboard.withTags([config.tag])
    + g.dashboard.withTimezone('browser')
    + g.dashboard.withEditable(false)
    + g.dashboard.withRefresh(refresh)
    + g.dashboard.time.withFrom(from)
    + g.dashboard.time.withTo('now')
    + g.dashboard.graphTooltip.withSharedCrosshair()
    + g.dashboard.withVariables(variables)
    + g.dashboard.withAnnotations([annotations[which] for which in annotated])
    + g.dashboard.withLinks([linkTo(other) for other in std.objectFields(titles) if other != name])
    + g.dashboard.withPanels(place(panels)),
}
