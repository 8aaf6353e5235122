# Prometheus, and Alertmanager where there is one.

mock_provider "grafana" {}

variables {
  grafana_auth = "admin:admin"
}

run "prometheus_is_the_default_with_a_fixed_uid" {
  assert {
    condition     = grafana_data_source.prometheus.type == "prometheus"
    error_message = "It is of type ${grafana_data_source.prometheus.type}."
  }

  assert {
    condition     = grafana_data_source.prometheus.uid == "prometheus"
    error_message = "Its uid is ${grafana_data_source.prometheus.uid}."
  }

  assert {
    condition     = grafana_data_source.prometheus.is_default
    error_message = "It is not the default."
  }

  assert {
    condition     = grafana_data_source.prometheus.url == "http://prometheus:9090"
    error_message = "Its URL is ${grafana_data_source.prometheus.url}."
  }
}

run "prometheus_is_asked_by_post_and_knows_the_scrape_interval" {
  assert {
    condition     = jsondecode(grafana_data_source.prometheus.json_data_encoded).httpMethod == "POST"
    error_message = "Long queries do not fit a GET: ${grafana_data_source.prometheus.json_data_encoded}."
  }

  assert {
    condition     = jsondecode(grafana_data_source.prometheus.json_data_encoded).timeInterval == "15s"
    error_message = "$__rate_interval needs the scrape interval: ${grafana_data_source.prometheus.json_data_encoded}."
  }
}

run "prometheus_is_linked_to_alertmanager" {
  assert {
    condition = (
      jsondecode(grafana_data_source.prometheus.json_data_encoded).alertmanagerUid ==
      grafana_data_source.alertmanager["this"].uid
    )
    error_message = "Silences would go nowhere: ${grafana_data_source.prometheus.json_data_encoded}."
  }

  assert {
    condition     = grafana_data_source.alertmanager["this"].type == "alertmanager"
    error_message = "It is of type ${grafana_data_source.alertmanager["this"].type}."
  }

  assert {
    condition     = grafana_data_source.alertmanager["this"].uid == "alertmanager"
    error_message = "Its uid is ${grafana_data_source.alertmanager["this"].uid}."
  }

  assert {
    condition     = grafana_data_source.alertmanager["this"].url == "http://alertmanager:9093"
    error_message = "Its URL is ${grafana_data_source.alertmanager["this"].url}."
  }

  assert {
    condition     = jsondecode(grafana_data_source.alertmanager["this"].json_data_encoded).implementation == "prometheus"
    error_message = "Grafana speaks to it as to another kind: ${grafana_data_source.alertmanager["this"].json_data_encoded}."
  }
}

run "without_alertmanager_there_is_no_data_source_and_no_link" {
  variables {
    alertmanager_url = null
  }

  assert {
    condition     = length(grafana_data_source.alertmanager) == 0
    error_message = "There is a data source for an Alertmanager that is not there."
  }

  assert {
    condition     = !contains(keys(jsondecode(grafana_data_source.prometheus.json_data_encoded)), "alertmanagerUid")
    error_message = "The link leads nowhere: ${grafana_data_source.prometheus.json_data_encoded}."
  }
}

run "data_sources_follow_their_variables" {
  variables {
    alertmanager_uid        = "am-2"
    alertmanager_url        = "https://alerts.example.org/am"
    prometheus_is_default   = false
    prometheus_uid          = "prom_2"
    prometheus_url          = "https://prometheus.example.org:9443/p"
    scrape_interval_seconds = 30
  }

  assert {
    condition     = grafana_data_source.prometheus.uid == "prom_2" && !grafana_data_source.prometheus.is_default
    error_message = "It is ${grafana_data_source.prometheus.uid}, or is the default."
  }

  assert {
    condition     = grafana_data_source.prometheus.url == "https://prometheus.example.org:9443/p"
    error_message = "Its URL is ${grafana_data_source.prometheus.url}."
  }

  assert {
    condition     = jsondecode(grafana_data_source.prometheus.json_data_encoded).timeInterval == "30s"
    error_message = "The interval is another: ${grafana_data_source.prometheus.json_data_encoded}."
  }

  assert {
    condition     = jsondecode(grafana_data_source.prometheus.json_data_encoded).alertmanagerUid == "am-2"
    error_message = "The link is another: ${grafana_data_source.prometheus.json_data_encoded}."
  }

  assert {
    condition     = grafana_data_source.alertmanager["this"].url == "https://alerts.example.org/am"
    error_message = "Alertmanager's URL is ${grafana_data_source.alertmanager["this"].url}."
  }
}
