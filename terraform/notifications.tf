# For those without Alertmanager, off by default: Grafana itself notifies of every alert that fires in Prometheus. The
# alerts stay where they are, in prometheus/rules; one rule here hands them on. It names its contact point itself, so
# the organisation's notification policies, which others may rely on, are left alone.

resource "grafana_contact_point" "this" {
  for_each = local.notifications

  name = "API Monitoring"

  webhook {
    url = var.notification_webhook_url
  }
}

resource "grafana_rule_group" "this" {
  for_each = local.notifications

  name             = "Prometheus alerts"
  folder_uid       = grafana_folder.this.uid
  interval_seconds = 30

  rule {
    name      = "PrometheusAlertFiring"
    for       = "0s"
    condition = "firing"
    # No alert fires.
    no_data_state = "OK"
    # Prometheus does not answer: somebody should know that, too.
    exec_err_state = "Error"

    annotations = {
      summary     = "{{ $labels.alert }} ({{ $labels.severity }}) fires{{ if $labels.job }} for {{ $labels.job }}{{ end }}"
      runbook_url = "https://github.com/api-monitoring/api-monitoring/blob/main/docs/runbook.md#{{ $labels.alert | toLower }}"
    }

    data {
      ref_id         = "alerts"
      datasource_uid = grafana_data_source.prometheus.uid

      relative_time_range {
        from = 300
        to   = 0
      }

      # Grafana sets `alertname` itself, to this rule's name.
      model = jsonencode({
        expr    = "max without (alertname, alertstate) (label_replace(ALERTS{alertstate=\"firing\"}, \"alert\", \"$1\", \"alertname\", \"(.+)\"))"
        instant = true
        refId   = "alerts"
      })
    }

    data {
      ref_id         = "firing"
      datasource_uid = "__expr__"

      relative_time_range {
        from = 0
        to   = 0
      }

      model = jsonencode({
        type       = "threshold"
        expression = "alerts"
        conditions = [{ evaluator = { type = "gt", params = [0] } }]
        refId      = "firing"
      })
    }

    notification_settings {
      contact_point = grafana_contact_point.this[each.key].name
      group_by      = ["alertname", "grafana_folder", "alert", "job"]
    }
  }
}
