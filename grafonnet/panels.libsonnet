// How panels look: units, ranges, colours, legends, and the words that say what is good and what to do. A panel gets its
// queries from outside.
local config = import 'config.libsonnet';
local g = import 'g.libsonnet';

// ---- Building blocks, from the general to the particular ----

local good = 'green';
local warn = 'yellow';
local bad = 'red';

local common(panel, title, description, targets, unit, width, height) =
  panel.new(title)
  + panel.panelOptions.withDescription(description)
  + panel.queryOptions.withTargets(targets)
  + panel.queryOptions.withDatasource('prometheus', '${datasource}')
  + panel.standardOptions.withUnit(unit)
  // Says that all is well with the panel itself.
  + panel.standardOptions.withNoValue('nothing in this time range')
  + panel.gridPos.withW(width)
  + panel.gridPos.withH(height);

// Steps from `[[value, colour], ...]`; the first value is null, which is minus infinity.
local steps(panel, list) =
  panel.standardOptions.thresholds.withMode('absolute')
  + panel.standardOptions.thresholds.withSteps([
    panel.standardOptions.threshold.step.withValue(step[0])
    + panel.standardOptions.threshold.step.withColor(step[1])
    for step in list
  ]);

// Green, yellow, red as a number grows.
local growing(panel, limits) = steps(panel, [[null, good], [limits.warning, warn], [limits.critical, bad]]);
local plain(panel) = steps(panel, [[null, 'text']]);

local colour(panel, mode, fixed=null) =
  panel.standardOptions.color.withMode(mode)
  + if fixed == null then {} else panel.standardOptions.color.withFixedColor(fixed);

local override(panel, regexp, properties) =
  std.foldl(
    function(rule, id) rule + panel.standardOptions.override.byRegexp.withProperty(id, properties[id]),
    std.objectFields(properties),
    panel.standardOptions.override.byRegexp.new(regexp),
  );
local column(name, properties) =
  std.foldl(
    function(rule, id) rule + g.panel.table.standardOptions.override.byName.withProperty(id, properties[id]),
    std.objectFields(properties),
    g.panel.table.standardOptions.override.byName.new(name),
  );

local timeSeries = {
  local ts = g.panel.timeSeries,
  local custom = ts.fieldConfig.defaults.custom,

  base(title, description, targets, unit, width=12, height=9)::
    common(ts, title, description, targets, unit, width, height)
    + colour(ts, 'palette-classic')
    + ts.standardOptions.withMin(0)
    + custom.withLineWidth(1)
    + custom.withFillOpacity(8)
    + custom.withShowPoints('never')
    + ts.options.tooltip.withMode('multi')
    + ts.options.tooltip.withSort('desc')
    + self.legendBelow(['lastNotNull', 'mean', 'max']),

  legendBelow(calcs)::
    ts.options.legend.withDisplayMode('table')
    + ts.options.legend.withPlacement('bottom')
    + ts.options.legend.withCalcs(calcs),
  legendRight(calcs, width)::
    ts.options.legend.withDisplayMode('table')
    + ts.options.legend.withPlacement('right')
    + ts.options.legend.withWidth(width)
    + ts.options.legend.withCalcs(calcs)
    + ts.options.legend.withSortBy({ lastNotNull: 'Last *', mean: 'Mean', max: 'Max' }[calcs[0]])
    + ts.options.legend.withSortDesc(true),

  stackedBars::
    custom.withDrawStyle('bars')
    + custom.withFillOpacity(80)
    + custom.withLineWidth(0)
    + custom.stacking.withMode('normal'),

  // A line at each limit.
  limits(list):: steps(ts, list) + custom.thresholdsStyle.withMode('dashed'),
  // Without the 0, which a logarithm does not have.
  logarithmic::
    custom.scaleDistribution.withType('log')
    + custom.scaleDistribution.withLog(10)
    + { fieldConfig+: { defaults+: { min:: null } } },
  steps:: custom.withLineInterpolation('stepAfter'),
};

local stat = {
  local s = g.panel.stat,

  base(title, description, targets, unit, width=4, height=4)::
    common(s, title, description, targets, unit, width, height)
    + s.options.reduceOptions.withCalcs(['lastNotNull'])
    + s.options.withGraphMode('none')
    + s.options.withColorMode('value')
    + plain(s),
  coloured(list):: steps(s, list),
  // The line behind the number.
  history:: s.options.withGraphMode('area'),
  filled:: s.options.withColorMode('background'),
};

local bars(title, description, targets, unit, width, height) =
  local b = g.panel.barGauge;
  common(b, title, description, targets, unit, width, height)
  + b.options.reduceOptions.withCalcs(['lastNotNull'])
  + b.options.withOrientation('horizontal')
  + b.options.withDisplayMode('basic')
  + b.options.withValueMode('color')
  + b.options.withNamePlacement('left')
  + b.options.withSizing('manual')
  + b.options.withMinVizHeight(16)
  + b.options.withMaxVizHeight(32)
  + b.options.text.withTitleSize(12)
  + b.options.text.withValueSize(16)
  + b.standardOptions.withMin(0);

// Names each bar, even where there is only one.
local namedBy(label) = g.panel.barGauge.standardOptions.withDisplayName('${__field.labels.%s}' % label);

local timeline(title, description, targets, width, height) =
  local t = g.panel.stateTimeline;
  common(t, title, description, targets, 'none', width, height)
  + t.options.withShowValue('never')
  + t.options.withMergeValues(true)
  + t.options.legend.withShowLegend(false)
  + t.fieldConfig.defaults.custom.withFillOpacity(80)
  + colour(t, 'thresholds');

// What each number is called, and its colour.
local states(panel, list) =
  panel.standardOptions.withMappings([
    panel.standardOptions.mapping.ValueMap.withType()
    + panel.standardOptions.mapping.ValueMap.withOptions({
      [std.toString(entry[0])]: { text: entry[1], color: entry[2], index: entry[0] }
      for entry in list
    }),
  ]);

local table(title, description, targets, width, height) =
  local t = g.panel.table;
  common(t, title, description, targets, 'short', width, height)
  + t.options.withCellHeight('sm')
  + t.queryOptions.withTransformations([
    // The queries' rows are one when all their labels agree; their names and moments do not.
    t.queryOptions.transformation.withId('organize')
    + t.queryOptions.transformation.withOptions({ excludeByName: { Time: true, __name__: true } }),
    t.queryOptions.transformation.withId('merge')
    + t.queryOptions.transformation.withOptions({}),
  ])
  + plain(t);
local columns(names, hidden) =
  local t = g.panel.table;
  t.queryOptions.withTransformationsMixin([
    t.queryOptions.transformation.withId('organize')
    + t.queryOptions.transformation.withOptions({
      excludeByName: { [name]: true for name in hidden },
      indexByName: { [names[i][0]]: i for i in std.range(0, std.length(names) - 1) },
      renameByName: { [name[0]]: name[1] for name in names },
    }),
  ]);

// ---- The panels ----

local statusColours(panel) = [
  override(panel, '/(^| )2..$/', { color: { mode: 'fixed', fixedColor: 'green' } }),
  override(panel, '/(^| )3..$/', { color: { mode: 'fixed', fixedColor: 'blue' } }),
  override(panel, '/(^| )4..$/', { color: { mode: 'fixed', fixedColor: 'orange' } }),
  override(panel, '/(^| )5..$/', { color: { mode: 'fixed', fixedColor: 'red' } }),
];
// From green to red, as the quantiles grow.
local quantileColours(panel) = [
  override(
    panel,
    '/(^| )P%d$/' % (config.quantiles[i] * 100),
    { color: { mode: 'fixed', fixedColor: [good, warn, bad][i] } },
  )
  for i in std.range(0, std.length(config.quantiles) - 1)
];
local percent(share) = '%g %%' % (share * 100);

local latencyPercentiles(targets, width) =
  timeSeries.base(
    'Latency Percentiles',
    |||
      How long requests take: half of them are faster than P50, 95 of 100 faster than P95, 99 of 100 faster than P99.

      **Good:** P95 below the dashed line at %(threshold)g s. **Otherwise:** see on *API Endpoints* which route is slow, and
      whether many requests are active at once. Quantiles are interpolated within a bucket of the histogram.
    ||| % { threshold: config.latencyThreshold },
    targets,
    's',
    width,
  )
  + timeSeries.limits([[null, 'transparent'], [config.latencyThreshold, bad]])
  + timeSeries.logarithmic
  + g.panel.timeSeries.standardOptions.withOverrides(quantileColours(g.panel.timeSeries))
  + g.panel.timeSeries.fieldConfig.defaults.custom.withFillOpacity(0);

local overview = {
  requestRate(targets)::
    timeSeries.base(
      'Request Rate (%s)' % config.window,
      |||
        Finished requests per second by method and route, averaged over %s; routes without a request in the time range are
        left out.

        **Good:** what is usual for the time of day (see *API Endpoints*). **A drop to 0** of everything: callers are gone
        or cannot come through. **A jump** of one line: one caller.
      ||| % config.window,
      targets,
      'reqps',
      11,
    )
    + timeSeries.legendRight(['lastNotNull'], 270),

  activeRequests(targets)::
    local gauge = g.panel.gauge;
    common(
      gauge,
      'Active Requests',
      |||
        Requests being handled at this moment, on all instances.

        **Good:** below %(warning)d. **From %(critical)d:** requests come faster than they are answered; look at the
        latency beside it. Above %(alert)d *TooManyActiveRequests* makes a ticket.
      ||| % config.requestsInProgress,
      targets,
      'short',
      4,
      9,
    )
    + gauge.standardOptions.withMin(0)
    + gauge.standardOptions.withMax(config.requestsInProgress.alert)
    + gauge.standardOptions.withDecimals(0)
    + gauge.options.reduceOptions.withCalcs(['lastNotNull'])
    + growing(gauge, config.requestsInProgress),

  latencyPercentiles(targets):: latencyPercentiles(targets, 9),

  errorRate(targets)::
    stat.base(
      'Error Rate (%s)' % config.window,
      |||
        The share of the last %(window)s' requests that failed, which is answered with a 5xx status. 0 %% is traffic
        without a failure; without traffic there is no number.

        **Good:** below %(warning)s. **From %(critical)s** *HighErrorRate* pages somebody; *Errors by Type* says what kind of
        failure it is.
      ||| % {
        window: config.window,
        warning: percent(config.errorRatio.warning),
        critical: percent(config.errorRatio.critical),
      },
      targets,
      'percentunit',
      5,
      9,
    )
    + stat.history
    + g.panel.stat.standardOptions.withMin(0)
    + g.panel.stat.standardOptions.withDecimals(2)
    + g.panel.stat.standardOptions.withNoValue('no traffic')
    + growing(g.panel.stat, config.errorRatio),

  requestsByStatusCode(targets)::
    timeSeries.base(
      'Requests by Status Code',
      |||
        Finished requests per second by status: 2xx green, 3xx blue, 4xx orange, 5xx red; 499 is a client that went away.

        **Good:** nearly all green. **Orange:** callers ask for the wrong thing, or are turned away. **Red:** the service
        fails.
      |||,
      targets,
      'reqps',
      10,
    )
    + timeSeries.stackedBars
    + timeSeries.legendRight(['lastNotNull'], 170)
    + g.panel.timeSeries.standardOptions.withOverrides(statusColours(g.panel.timeSeries)),

  errorsByType(targets)::
    timeSeries.base(
      'Errors by Type',
      |||
        Responses of 400 and above per second by kind of error, of all routes: the choice of routes does not apply here.

        **Good:** few, and of the caller's making (`validation`, `not_found`). **Otherwise:** `store_…` is the database,
        `overloaded` too many requests at once, `timeout` a handler past its deadline, `panic` a bug. The log
        has each with its request id.
      |||,
      targets,
      'reqps',
      9,
    )
    + timeSeries.legendRight(['lastNotNull'], 270),

  requestDistribution(targets)::
    local pie = g.panel.pieChart;
    common(
      pie,
      'Request Distribution by Endpoint',
      |||
        How the requests of the whole time range divide among the routes.

        **Good:** the shares that you know. A share that grew is where new load comes from; much `unmatched` is somebody
        who asks for paths that do not exist.
      |||,
      targets,
      // Whole numbers, in groups of three digits.
      'locale',
      10,
      9,
    )
    + pie.standardOptions.withDecimals(0)
    + pie.standardOptions.withNoValue('no requests')
    + colour(pie, 'palette-classic')
    + pie.options.reduceOptions.withCalcs(['lastNotNull'])
    + pie.options.withPieType('donut')
    + pie.options.legend.withDisplayMode('table')
    + pie.options.legend.withPlacement('right')
    + pie.options.legend.withValues(['value', 'percent']),

  averageResponseTime(targets)::
    bars(
      'Average Response Time by Endpoint',
      |||
        The mean time until the response's head is ready, over the whole time range, slowest first.

        **Good:** below %(threshold)g s. A mean hides its worst cases: *Latency Percentiles* shows those. `/api/slow` takes
        2 to 3 s on purpose.
      ||| % { threshold: config.latencyThreshold },
      targets,
      's',
      14,
      9,
    )
    + g.panel.barGauge.standardOptions.withNoValue('no requests')
    + namedBy('route')
    + steps(g.panel.barGauge, [[null, good], [config.latencyThreshold, bad]]),
};

local users = {
  users(targets)::
    stat.base('Users', 'Users in the store, whoever wrote them. No value is good or bad by itself.', targets, 'locale', 4, 6)
    + stat.history,
  usersChanged(targets)::
    timeSeries.base(
      'Users Created and Deleted',
      |||
        Users created and deleted per second, as committed to the store.

        **Good:** what is usual. Many deletions at once are worth a question.
      |||,
      targets,
      'suffix:users/s',
      8,
      6,
    )
    + timeSeries.legendRight(['lastNotNull'], 190),
  legacyActiveUsers(targets)::
    stat.base(
      'Active Users (legacy)',
      'As last set by `GET /update`: a figure of the origin, which says nothing about this service.',
      targets,
      'locale',
      4,
      6,
    ),
  legacyCpuUsage(targets)::
    stat.base(
      'CPU Usage (legacy)',
      'As last set by `GET /cpu`: a figure of the origin. What the process really uses is under *Process*.',
      targets,
      'percent',
      4,
      6,
    )
    + g.panel.stat.standardOptions.withMin(0)
    + g.panel.stat.standardOptions.withMax(100),
  legacyRequests(targets)::
    stat.base(
      'Requests (legacy)',
      |||
        All finished requests per second by the origin's unlabelled counter, probes included; the choices of route and
        probes do not apply.
      |||,
      targets,
      'reqps',
      4,
      6,
    ),
};

local process = {
  cpu(targets)::
    timeSeries.base(
      'CPU',
      |||
        The share of one core that the process uses, over %s. The counter behind it has whole seconds, so that low usage
        shows as steps.

        **Good:** well below the cores that it has. At all of them requests queue.
      ||| % config.window,
      targets,
      'percentunit',
      7,
      7,
    ),
  memory(targets)::
    timeSeries.base(
      'Memory',
      |||
        Resident memory of the process.

        **Good:** level. Growth that never ends is a leak, and the kernel ends it; large listings show as short rises.
      |||,
      targets,
      'bytes',
      7,
      7,
    ),
  fileDescriptors(targets)::
    timeSeries.base(
      'File Descriptors',
      |||
        Open files and connections of the process.

        **Good:** a few dozen and one for each connection. Near the process's limit (`process_max_fds`) new connections
        are refused.
      |||,
      targets,
      'short',
      6,
      7,
    )
    + g.panel.timeSeries.standardOptions.withDecimals(0),
  uptime(targets)::
    stat.base(
      'Uptime',
      'Since the process started. **Good:** since the last deployment; less is a restart that nobody asked for.',
      targets,
      's',
      4,
      7,
    ),
};

local scrape = {
  up(targets)::
    timeline(
      'Reachable',
      |||
        Whether Prometheus could scrape the instance.

        **Good:** green throughout. While it is red nothing is counted, and *ApiDown* pages somebody.
      |||,
      targets,
      8,
      7,
    )
    + steps(g.panel.stateTimeline, [[null, bad], [1, good]])
    + states(g.panel.stateTimeline, [[0, 'down', bad], [1, 'up', good]]),
  scrapeDuration(targets)::
    timeSeries.base(
      'Scrape Duration',
      |||
        How long a scrape takes.

        **Good:** far below the 10 s after which it is given up. Growth comes from more series, or a busy instance.
      |||,
      targets,
      's',
      8,
      7,
    ),
  series(targets)::
    timeSeries.base(
      'Series',
      |||
        How many series one scrape brings.

        **Good:** level, below the dashed line at %d. Above %d Prometheus drops the whole scrape. Growth means that a
        label has values without bound.
      ||| % [config.sampleShare * config.sampleLimit, config.sampleLimit],
      targets,
      'short',
      8,
      7,
    )
    + timeSeries.limits([[null, 'transparent'], [config.sampleShare * config.sampleLimit, bad]]),
  versions(targets)::
    table(
      'Versions',
      'What is running. **Good:** one version on all instances, unless a deployment is under way.',
      targets,
      24,
      5,
    )
    + columns(
      [
        ['job', 'Job'],
        ['instance', 'Instance'],
        ['version', 'Version'],
        ['revision', 'Revision'],
        ['rustc', 'Compiler'],
        ['Value', 'Started'],
      ],
      [],
    )
    + g.panel.table.standardOptions.withOverrides([column('Started', { unit: 'dateTimeAsLocal' })]),
};

local endpoints = {
  summary(targets)::
    table(
      'Endpoints',
      |||
        Each route that was asked for in the time range. Choose one above to see it alone.

        **Good:** green throughout. The mean and the quantiles are of the whole time range; a quantile below 5 ms, the first
        bucket, says no more than that.
      |||,
      targets,
      24,
      9,
    )
    + columns(
      [
        ['route', 'Route'],
        ['Value #A', 'Requests'],
        ['Value #B', 'Failed'],
        ['Value #C', 'Mean'],
        ['Value #D', 'P50'],
        ['Value #E', 'P95'],
        ['Value #F', 'P99'],
      ],
      [],
    )
    + g.panel.table.options.withSortBy([{ displayName: 'Requests', desc: true }])
    + g.panel.table.standardOptions.withOverrides([
      column('Requests', { unit: 'locale', decimals: 0 }),
      column('Failed', {
        unit: 'percentunit',
        decimals: 2,
        thresholds: growing(g.panel.table, config.errorRatio).fieldConfig.defaults.thresholds,
        'custom.cellOptions': { type: 'color-text' },
      }),
    ] + [
      column(name, {
        unit: 's',
        thresholds: steps(g.panel.table, [[null, good], [config.latencyThreshold, bad]]).fieldConfig.defaults.thresholds,
        'custom.cellOptions': { type: 'color-text' },
      })
      for name in ['Mean', 'P50', 'P95', 'P99']
    ]),
  rateByRoute(targets)::
    timeSeries.base(
      'Request Rate',
      |||
        Finished requests per second by route.

        **Good:** what is usual for the hour; the panels at the bottom show the same hour of other days.
      |||,
      targets,
      'reqps',
    )
    + timeSeries.legendRight(['mean', 'max'], 300),
  errorsByRoute(targets)::
    timeSeries.base(
      'Error Rate',
      |||
        The share of each route's requests that failed (5xx). A route without traffic has no line.

        **Good:** 0. Above the dashed line at %s the route alone is worth a page.
      ||| % percent(config.errorRatio.critical),
      targets,
      'percentunit',
    )
    + timeSeries.legendRight(['mean', 'max'], 300)
    + timeSeries.limits([[null, 'transparent'], [config.errorRatio.critical, bad]]),
  durationHeatmap(targets)::
    local heatmap = g.panel.heatmap;
    common(
      heatmap,
      'Duration',
      |||
        How requests spread over the buckets of the duration, in requests per second; the darker, the fewer.

        **Good:** one bright band that stays low. Two bands are two kinds of requests; a band that climbs is a service
        that slows down.
      |||,
      targets,
      'reqps',
      12,
      9,
    )
    + heatmap.options.withCalculate(false)
    + heatmap.options.withCellGap(1)
    + heatmap.options.yAxis.withUnit('s')
    + heatmap.options.cellValues.withUnit('reqps')
    + heatmap.options.color.withMode('scheme')
    + heatmap.options.color.withScheme('Oranges')
    + heatmap.options.color.withSteps(64)
    + heatmap.options.color.withReverse(true)
    // A bucket with nothing in it is background, not the lowest colour.
    + heatmap.options.filterValues.withLe(1e-9),
  latencyPercentiles(targets):: latencyPercentiles(targets, 12),
  p95ByRoute(targets)::
    timeSeries.base(
      'P%d by Route' % (config.alertQuantile * 100),
      |||
        The time within which 95 of 100 requests to the route are answered.

        **Good:** below the dashed line at %(threshold)g s. Below 5 ms, the first bucket, a quantile says no more than that.
        `/api/slow` takes 2 to 3 s on purpose.
      ||| % { threshold: config.latencyThreshold },
      targets,
      's',
    )
    + timeSeries.legendRight(['mean', 'max'], 300)
    + timeSeries.logarithmic
    + timeSeries.limits([[null, 'transparent'], [config.latencyThreshold, bad]]),
  statusesByRoute(targets)::
    timeSeries.base(
      'Statuses by Route',
      |||
        Finished requests per second by route and status.

        **Good:** green. Orange is the caller's doing, red the service's.
      |||,
      targets,
      'reqps',
    )
    + timeSeries.legendRight(['mean'], 280)
    + timeSeries.stackedBars
    + g.panel.timeSeries.standardOptions.withOverrides(statusColours(g.panel.timeSeries)),
  recordedPercentiles(targets)::
    timeSeries.base(
      'Latency Percentiles of All Routes',
      |||
        P50, P95 and P99 of all routes and instances over %s, as recorded.

        **Good:** level over days, P95 below the dashed line. A step that stays is a change; see what was deployed.
      ||| % config.window,
      targets,
      's',
      8,
    )
    + timeSeries.limits([[null, 'transparent'], [config.latencyThreshold, bad]])
    + timeSeries.logarithmic
    + g.panel.timeSeries.standardOptions.withOverrides(quantileColours(g.panel.timeSeries))
    + g.panel.timeSeries.fieldConfig.defaults.custom.withFillOpacity(0),
  recordedPercentilesByRoute(targets)::
    timeSeries.base(
      'Latency Percentiles by Route',
      |||
        P50, P95 and P99 of each route and of all instances over %s, as recorded.

        **Good:** level over days.
      ||| % config.window,
      targets,
      's',
      8,
    )
    + timeSeries.logarithmic
    + timeSeries.legendRight(['mean'], 230)
    + g.panel.timeSeries.fieldConfig.defaults.custom.withFillOpacity(0),
  recordedMean(targets)::
    timeSeries.base(
      'Mean Duration by Route',
      |||
        The mean time to answer of each route and of all instances over %s, as recorded.

        **Good:** level over days.
      ||| % config.window,
      targets,
      's',
      8,
    )
    + timeSeries.logarithmic
    + timeSeries.legendRight(['mean'], 200),
  ratePattern(targets)::
    timeSeries.base(
      'Request Rate: the Same Hour of Other Days',
      |||
        Requests per second of all instances now, a day before and a week before at the same time of day.

        **Good:** the three run together. No line for a day on which nothing was recorded.
      |||,
      targets,
      'reqps',
    ),
  latencyPattern(targets)::
    timeSeries.base(
      'Mean Duration: the Same Hour of Other Days',
      |||
        The mean time to answer, of all instances, now, a day before and a week before at the same time of day.

        **Good:** the three run together. A line that left the others after a deployment is a regression.
      |||,
      targets,
      's',
    ),
};

local slo = {
  local objective(name) = percent(config.objectives[name]),
  local about = {
    availability: 'answered without a 5xx status',
    latency: 'answered within %g s' % config.latencyThreshold,
  },
  local pairs = std.join(', ', ['%g (%s and %s)' % [p.factor, p.long, p.short] for p in config.burnRates]),
  local pairColours = ['red', 'orange', 'yellow', 'blue'],

  title(name):: '%s: %s of requests are %s' % [
    std.asciiUpper(name[0]) + std.substr(name, 1, std.length(name) - 1),
    objective(name),
    about[name],
  ],
  achieved(name, targets)::
    stat.base(
      'Achieved',
      |||
        The share of requests %s, over %s or as much of it as Prometheus keeps. Time in which the service could not be
        reached counts as failed. In a service's first hour its first minutes weigh more than others.

        **Good:** %s or more.
      ||| % [about[name], config.budgetWindow, objective(name)],
      targets,
      'percentunit',
      4,
      6,
    )
    + g.panel.stat.standardOptions.withDecimals(3)
    + g.panel.stat.standardOptions.withNoValue('no traffic')
    + stat.coloured([[null, bad], [config.objectives[name], good]]),
  budgetLeft(name, targets)::
    stat.base(
      'Error Budget Left',
      |||
        How much of the failures that the objective allows in %s is still to be spent. Time before Prometheus' records
        begin counts as free of failures: see the bottom.

        **Good:** above 25 %%. **Below 0:** the objective is missed; put safety before new features until it recovers.
      ||| % config.budgetWindow,
      targets,
      'percentunit',
      4,
      6,
    )
    + g.panel.stat.standardOptions.withDecimals(1)
    + g.panel.stat.standardOptions.withNoValue('no traffic')
    + stat.coloured([[null, bad], [0, warn], [0.25, good]]),
  budgetOverTime(name, targets)::
    timeSeries.base(
      'Error Budget over Time',
      |||
        How the budget left developed. It falls with each failure and rises as old ones leave the window of %s.

        **Good:** level, or slowly falling. A cliff is an incident.
      ||| % config.budgetWindow,
      targets,
      'percentunit',
      8,
      6,
    )
    + { fieldConfig+: { defaults+: { min:: null, max: 1 } } }
    + g.panel.timeSeries.options.legend.withShowLegend(false),
  burnRates(name, targets)::
    timeSeries.base(
      'Burn Rate',
      |||
        How many times faster than allowed the budget is used, over each alert's long window; 1 uses it up exactly in %s.

        **Good:** below 1. Each window's limit is the dashed line of its colour: %s.
      ||| % [config.budgetWindow, pairs],
      targets,
      'suffix:×',
      12,
      9,
    )
    + timeSeries.legendRight(['lastNotNull'], 190)
    + timeSeries.limits(
      [[null, 'transparent']]
      + std.reverse([[config.burnRates[i].factor, pairColours[i]] for i in std.range(0, std.length(config.burnRates) - 1)])
    )
    + g.panel.timeSeries.standardOptions.withOverrides([
      override(
        g.panel.timeSeries,
        '/ over %s$/' % config.burnRates[i].long,
        { color: { mode: 'fixed', fixedColor: pairColours[i] } },
      )
      for i in std.range(0, std.length(config.burnRates) - 1)
    ]),
  burnPairs(name, targets)::
    bars(
      'Burn Rate against its Alert',
      |||
        Each alert's burn rate as a share of its limit, by requests alone: an outage is *ApiDown*'s to tell. The lower of
        its two windows decides.

        **Good:** below 50 %%. At 100 %% *ApiErrorBudgetBurn* is about to fire, if at least %d requests have failed.
      ||| % config.minFailures,
      targets,
      'percentunit',
      8,
      6,
    )
    + g.panel.barGauge.standardOptions.withMax(1)
    + g.panel.barGauge.standardOptions.withNoValue('no traffic')
    + growing(g.panel.barGauge, { warning: 0.5, critical: 1 }),
  spentByRoute(name, targets)::
    table(
      'What Spends the Budget',
      |||
        Each route's share of the requests that missed the objective in the time range.

        **Good:** nothing here. Begin with the longest bar.
      |||,
      targets,
      12,
      9,
    )
    + columns([['route', 'Route'], ['Value', 'Share']], [])
    + g.panel.table.standardOptions.withNoValue('nothing missed it')
    + g.panel.table.standardOptions.withOverrides([
      column('Share', {
        unit: 'percentunit',
        min: 0,
        max: 1,
        color: { mode: 'fixed', fixedColor: 'orange' },
        'custom.cellOptions': { type: 'gauge', mode: 'basic', valueDisplayMode: 'text' },
      }),
      column('Route', { 'custom.width': 220 }),
    ]),
  history(targets)::
    stat.base(
      'History behind the Figures',
      |||
        Since when the service is known to Prometheus. What is called %s here rests on no more than that, and on no more
        than Prometheus keeps.
      ||| % config.budgetWindow,
      targets,
      's',
      24,
      3,
    ),
};

local jobs = {
  local count(title, description, targets, limits) =
    stat.base(title, description, targets, 'short', 4, 4)
    + g.panel.stat.standardOptions.withDecimals(0)
    + stat.coloured(limits),

  known(targets)::
    count('Jobs', 'Jobs of which a run was ever pushed.', targets, [[null, 'text']]),
  running(targets)::
    count(
      'Running',
      'Jobs with a run under way. One that was killed without notice stays here until its next run.',
      targets,
      [[null, 'text'], [1, 'blue']],
    ),
  failed(targets)::
    count(
      'Failed',
      "Jobs whose last run failed. **Good:** 0. Otherwise read the run's own output; the exit code is in the table.",
      targets,
      [[null, good], [1, bad]],
    ),
  overdue(targets)::
    count(
      'Overdue',
      'Jobs that have not succeeded for longer than they say they may (`--expect-every`). **Good:** 0. Otherwise see '
      + 'whether they are started at all.',
      targets,
      [[null, good], [1, bad]],
    ),
  rejected(targets)::
    count(
      'Pushes Rejected',
      "Groups whose last push the gateway threw away. **Good:** 0. Otherwise the pusher's log has the gateway's answer.",
      targets,
      [[null, good], [1, bad]],
    ),
  gateway(targets)::
    count(
      'Pushgateway',
      'Whether Prometheus can scrape the gateway. While it cannot, everything here is old.',
      targets,
      [[null, bad], [1, good]],
    )
    + states(g.panel.stat, [[0, 'down', bad], [1, 'up', good]])
    + g.panel.stat.standardOptions.withNoValue('not scraped'),

  lastRuns(targets)::
    table(
      'Last Runs',
      |||
        Each job's last run as it was pushed.

        **Good:** exit code 0, and a last success younger than expected. 124: it took too long; 126, 127: it could not be
        run; 128+n: ended by signal n.
      |||,
      targets,
      24,
      7,
    )
    + g.panel.table.standardOptions.withNoValue('–')
    + columns(
      [
        ['job', 'Job'],
        ['instance', 'Instance'],
        ['Value #A', 'Exit code'],
        ['Value #B', 'Running'],
        ['Value #C', 'Ended before'],
        ['Value #D', 'Succeeded before'],
        ['Value #E', 'Expected every'],
        ['Value #F', 'Duration'],
        ['Value #G', 'CPU time'],
        ['Value #H', 'Most memory'],
      ],
      [],
    )
    + g.panel.table.standardOptions.withOverrides([
      column('Exit code', {
        unit: 'none',
        decimals: 0,
        thresholds: steps(g.panel.table, [[null, good], [1, bad]]).fieldConfig.defaults.thresholds,
        'custom.cellOptions': { type: 'color-text' },
      }),
      column('Running', {
        mappings: states(g.panel.table, [[0, 'no', 'text'], [1, 'yes', 'blue']]).fieldConfig.defaults.mappings,
        'custom.cellOptions': { type: 'color-text' },
      }),
      column('Most memory', { unit: 'bytes' }),
    ] + [
      column(name, { unit: 's' })
      for name in ['Ended before', 'Succeeded before', 'Expected every', 'Duration', 'CPU time']
    ]),
  results(targets)::
    timeline(
      'Results over Time',
      'How the last run had ended at each moment: green with exit code 0, red otherwise.',
      targets,
      12,
      8,
    )
    + steps(g.panel.stateTimeline, [[null, good], [1, bad]]),
  runningOverTime(targets)::
    timeline(
      'Runs over Time',
      |||
        When a run was under way, as far as scrapes saw it: a run shorter than the scrape interval is often not seen.
      |||,
      targets,
      12,
      8,
    )
    + steps(g.panel.stateTimeline, [[null, 'transparent'], [1, 'blue']])
    + states(g.panel.stateTimeline, [[0, 'idle', 'transparent'], [1, 'running', 'blue']]),
  durations(targets)::
    timeSeries.base(
      'Duration over Runs',
      |||
        How long the last run had taken at each moment; each step is a run.

        **Good:** level. Growth ends at the next run's start, or at its time limit.
      |||,
      targets,
      's',
      12,
      9,
    )
    + timeSeries.legendRight(['lastNotNull'], 210)
    + timeSeries.steps,
  successAge(targets)::
    timeSeries.base(
      'Age of the Last Success against what is Expected',
      |||
        The time since the last success as a share of the time that the job may take from one to the next. Only jobs with
        `--expect-every`.

        **Good:** a saw below the dashed line. Above it *BatchJobOverdue* pages somebody.
      |||,
      targets,
      'percentunit',
      12,
      9,
    )
    + timeSeries.legendRight(['lastNotNull'], 210)
    + timeSeries.limits([[null, 'transparent'], [1, bad]]),
  importedRows(targets)::
    bars(
      'Rows of the Last Import',
      |||
        What became of the rows of the last `api-monitoring import`.

        **Good:** no `rejected`; `skipped` rows were imported by an earlier run.
      |||,
      targets,
      'short',
      8,
      7,
    )
    + g.panel.barGauge.standardOptions.withDecimals(0)
    + g.panel.barGauge.standardOptions.withNoValue('no import')
    + colour(g.panel.barGauge, 'fixed', 'blue')
    + g.panel.barGauge.standardOptions.withOverrides([
      override(g.panel.barGauge, '/rejected$/', { color: { mode: 'fixed', fixedColor: bad } }),
    ]),
  pushAge(targets)::
    timeSeries.base(
      'Time since the Last Push',
      |||
        How old each group is at the gateway.

        **Good:** as old as its job's last run. A group of a job that no longer exists stays until somebody deletes it.
      |||,
      targets,
      's',
      8,
      7,
    )
    + timeSeries.legendRight(['lastNotNull'], 210),
  servicePushes(targets)::
    timeSeries.base(
      'Pushes by Services',
      |||
        Pushes per second by services that push their own metrics, by how they ended. Empty while none does.

        **Good:** only `success`. `unavailable`: the gateway does not answer; `refused`: it will not take them.
      |||,
      targets,
      'suffix:pushes/s',
      8,
      7,
    )
    + g.panel.timeSeries.standardOptions.withNoValue('no service pushes')
    + g.panel.timeSeries.standardOptions.withOverrides([
      override(g.panel.timeSeries, '/^success$/', { color: { mode: 'fixed', fixedColor: good } }),
      override(g.panel.timeSeries, '/^unavailable$/', { color: { mode: 'fixed', fixedColor: warn } }),
      override(g.panel.timeSeries, '/^refused$/', { color: { mode: 'fixed', fixedColor: bad } }),
    ]),
};

{
  overview: overview,
  users: users,
  process: process,
  scrape: scrape,
  endpoints: endpoints,
  slo: slo,
  jobs: jobs,
}
