// Renders the rules: `jsonnet -S -m prometheus/rules prometheus/rules.jsonnet`, or `make rules`.
local files = (import 'recording.libsonnet') + (import 'alerts.libsonnet');

{
  [name]: '# Rendered by `make rules` from the Jsonnet files beside this folder; change those.\n'
          + std.manifestYamlDoc(files[name]) + '\n'
  for name in std.objectFields(files)
}
