// The only file that names grafonnet and its version; jsonnetfile.lock.json pins the commit.
import 'github.com/grafana/grafonnet/gen/grafonnet-v11.4.0/main.libsonnet'
