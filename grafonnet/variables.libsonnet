// The choices at the top of each dashboard.
local config = import 'config.libsonnet';
local g = import 'g.libsonnet';
local var = g.dashboard.variable;

local datasource =
  var.datasource.new('datasource', 'prometheus')
  + var.datasource.generalOptions.withLabel('Data source');

// A label's values, several at once or all.
local choice(name, label, description, labelName, metric) =
  var.query.new(name)
  + var.query.withDatasourceFromVariable(datasource)
  + var.query.queryTypes.withLabelValues(labelName, metric)
  + var.query.generalOptions.withLabel(label)
  + var.query.generalOptions.withDescription(description)
  + var.query.selectionOptions.withMulti()
  + var.query.selectionOptions.withIncludeAll(true, '.*')
  + var.query.refresh.onTime()
  + var.query.withSort(1)
  + var.query.generalOptions.withCurrent('All', ['$__all']);

{
  datasource: datasource,

  // Not "All" from the start: a service that is scraped and also pushes is there twice.
  job:
    choice('job', 'Job', 'The scrape job of the service.', 'job', 'http_requests_total')
    + var.query.generalOptions.withCurrent(config.apiJob, [config.apiJob]),

  instance:
    choice(
      'instance',
      'Instance',
      'The process, as host and port.',
      'instance',
      'http_requests_total{job=~"$job"}',
    ),

  probes:
    var.custom.new('probes', [
      { key: 'left out', value: config.probes },
      // No route is called so.
      { key: 'counted', value: '-' },
    ])
    + var.custom.generalOptions.withLabel('Probes')
    + var.custom.generalOptions.withDescription('Whether the routes that only machines ask for are shown.')
    + var.custom.generalOptions.withCurrent('left out', config.probes),

  route:
    choice(
      'route',
      'Route',
      'The route template; `unmatched` is every path that fits none.',
      'route',
      'http_requests_total{job=~"$job", instance=~"$instance", route!~"$probes"}',
    ),

  batchJob:
    choice(
      'batch_job',
      'Batch job',
      'The job under which runs are pushed.',
      'job',
      'batch_job_last_start_timestamp_seconds',
    ),
}
