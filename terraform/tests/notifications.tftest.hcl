# Grafana's own notifications, for those without Alertmanager.

mock_provider "grafana" {}

variables {
  grafana_auth = "admin:admin"
}

run "grafana_notifies_nobody_unless_it_is_told_to" {
  assert {
    condition     = length(grafana_contact_point.this) == 0 && length(grafana_rule_group.this) == 0
    error_message = "There is a contact point or a rule."
  }
}

run "a_webhook_is_told_of_the_alerts_that_fire_in_prometheus" {
  variables {
    notification_webhook_url = "https://pager.example.org/hooks/1"
    prometheus_uid           = "prom-2"
  }

  assert {
    condition = nonsensitive(
      [for webhook in grafana_contact_point.this["this"].webhook : webhook.url] == ["https://pager.example.org/hooks/1"]
    )
    error_message = "The contact point is another."
  }

  assert {
    condition     = grafana_rule_group.this["this"].folder_uid == grafana_folder.this.uid
    error_message = "The rule is outside the folder."
  }

  assert {
    condition = [
      for setting in grafana_rule_group.this["this"].rule[0].notification_settings : setting.contact_point
    ] == [grafana_contact_point.this["this"].name]
    error_message = "The rule tells somebody else."
  }

  assert {
    condition     = [for data in grafana_rule_group.this["this"].rule[0].data : data.datasource_uid] == ["prom-2", "__expr__"]
    error_message = "The rule asks other data sources."
  }

  assert {
    condition = strcontains(
      jsondecode(grafana_rule_group.this["this"].rule[0].data[0].model).expr, "ALERTS{alertstate=\"firing\"}"
    )
    error_message = "The rule asks for something else."
  }

  # A query or a condition that no data has never fires.
  assert {
    condition = contains(
      [for data in grafana_rule_group.this["this"].rule[0].data : data.ref_id],
      grafana_rule_group.this["this"].rule[0].condition
    )
    error_message = "The condition is none of the rule's data."
  }

  assert {
    condition = (
      jsondecode(grafana_rule_group.this["this"].rule[0].data[1].model).expression ==
      grafana_rule_group.this["this"].rule[0].data[0].ref_id
    )
    error_message = "The threshold looks at something else."
  }
}
