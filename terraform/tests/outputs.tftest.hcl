# Addresses that people open in their browsers. The uids of folder and dashboards are the provider's to give, so that
# here each is whatever the mock made up.

mock_provider "grafana" {}

variables {
  grafana_auth = "admin:admin"
}

run "urls_are_those_of_grafana" {
  variables {
    grafana_url = "https://grafana.example.org/sub"
  }

  assert {
    condition = output.dashboard_urls == {
      for uid, dashboard in grafana_dashboard.this : uid => "https://grafana.example.org/sub/d/${dashboard.uid}"
    }
    error_message = "They are ${join(", ", values(output.dashboard_urls))}."
  }

  assert {
    condition     = output.folder_url == "https://grafana.example.org/sub/dashboards/f/${grafana_folder.this.uid}"
    error_message = "It is ${output.folder_url}."
  }

  assert {
    condition     = output.prometheus_uid == "prometheus"
    error_message = "It is ${output.prometheus_uid}."
  }
}

run "a_public_url_takes_precedence" {
  variables {
    grafana_public_url = "https://grafana.example.org"
    grafana_url        = "http://grafana:3000"
  }

  assert {
    condition = alltrue([
      for url in concat(values(output.dashboard_urls), [output.folder_url]) : startswith(url, "https://grafana.example.org/d")
    ])
    error_message = "They are ${join(", ", values(output.dashboard_urls))} and ${output.folder_url}."
  }
}

run "a_slash_at_the_end_is_not_doubled" {
  variables {
    grafana_public_url = "https://grafana.example.org/"
  }

  assert {
    condition     = output.folder_url == "https://grafana.example.org/dashboards/f/${grafana_folder.this.uid}"
    error_message = "It is ${output.folder_url}."
  }
}
