# What is refused before anything is asked of Grafana, and what is just not.

mock_provider "grafana" {}

variables {
  grafana_auth = "admin:admin"
}

run "accepts_what_is_unusual_and_right" {
  variables {
    alertmanager_url         = null
    dashboards_path          = "tests/fixtures/added"
    folder_title             = "Überwachung"
    folder_uid               = "a234567890123456789012345678901234567890"
    grafana_auth             = "glsa_token"
    grafana_public_url       = "https://example.org/grafana/"
    grafana_url              = "http://[::1]:3000"
    notification_webhook_url = "http://10.0.0.1:8080/hooks/1?key=2"
    prometheus_uid           = "_"
    prometheus_url           = "https://user:password@prometheus.example.org"
    scrape_interval_seconds  = 1
    service_account_name     = "CI, dashboards"
  }
}

run "rejects_a_url_without_scheme" {
  command = plan

  variables {
    alertmanager_url         = "alertmanager:9093"
    grafana_public_url       = "grafana.example.org"
    grafana_url              = "localhost:3000"
    notification_webhook_url = "//pager.example.org"
    prometheus_url           = "prometheus:9090"
  }

  expect_failures = [
    var.alertmanager_url,
    var.grafana_public_url,
    var.grafana_url,
    var.notification_webhook_url,
    var.prometheus_url,
  ]
}

run "rejects_a_url_of_another_scheme" {
  command = plan

  variables {
    alertmanager_url         = "ftp+http://alertmanager:9093"
    grafana_public_url       = "file:https://grafana.example.org"
    grafana_url              = "xhttp://localhost:3000"
    notification_webhook_url = "url=https://pager.example.org"
    prometheus_url           = " http://prometheus:9090"
  }

  expect_failures = [
    var.alertmanager_url,
    var.grafana_public_url,
    var.grafana_url,
    var.notification_webhook_url,
    var.prometheus_url,
  ]
}

run "rejects_a_url_without_host" {
  command = plan

  variables {
    alertmanager_url         = "http://"
    grafana_public_url       = "https:///d"
    grafana_url              = "http://?orgId=1"
    notification_webhook_url = "https://#"
    prometheus_url           = "http:// prometheus"
  }

  expect_failures = [
    var.alertmanager_url,
    var.grafana_public_url,
    var.grafana_url,
    var.notification_webhook_url,
    var.prometheus_url,
  ]
}

run "rejects_an_empty_url" {
  command = plan

  variables {
    alertmanager_url         = ""
    grafana_public_url       = ""
    grafana_url              = ""
    notification_webhook_url = ""
    prometheus_url           = ""
  }

  expect_failures = [
    var.alertmanager_url,
    var.grafana_public_url,
    var.grafana_url,
    var.notification_webhook_url,
    var.prometheus_url,
  ]
}

run "rejects_an_empty_uid" {
  command = plan

  variables {
    alertmanager_uid = ""
    folder_uid       = ""
    prometheus_uid   = ""
  }

  expect_failures = [var.alertmanager_uid, var.folder_uid, var.prometheus_uid]
}

run "rejects_a_uid_with_other_characters" {
  command = plan

  variables {
    alertmanager_uid = "alert manager"
    folder_uid       = "api/monitoring"
    prometheus_uid   = "prömetheus"
  }

  expect_failures = [var.alertmanager_uid, var.folder_uid, var.prometheus_uid]
}

# Grafana's columns have 40 characters.
run "rejects_a_uid_of_41_characters" {
  command = plan

  variables {
    alertmanager_uid = "a2345678901234567890123456789012345678901"
    folder_uid       = "a2345678901234567890123456789012345678901"
    prometheus_uid   = "a2345678901234567890123456789012345678901"
  }

  expect_failures = [var.alertmanager_uid, var.folder_uid, var.prometheus_uid]
}

run "rejects_what_is_empty" {
  command = plan

  variables {
    folder_title         = ""
    grafana_auth         = ""
    service_account_name = ""
  }

  expect_failures = [var.folder_title, var.grafana_auth, var.service_account_name]
}

run "rejects_what_is_blank" {
  command = plan

  variables {
    folder_title         = " "
    grafana_auth         = " \t"
    service_account_name = " "
  }

  expect_failures = [var.folder_title, var.grafana_auth, var.service_account_name]
}

run "rejects_a_scrape_interval_of_nothing" {
  command = plan

  variables {
    scrape_interval_seconds = 0
  }

  expect_failures = [var.scrape_interval_seconds]
}

run "rejects_a_part_of_a_second" {
  command = plan

  variables {
    scrape_interval_seconds = 1.5
  }

  expect_failures = [var.scrape_interval_seconds]
}

run "rejects_a_folder_without_dashboards" {
  command = plan

  variables {
    dashboards_path = "tests"
  }

  expect_failures = [var.dashboards_path]
}

run "rejects_a_folder_that_is_not_there" {
  command = plan

  variables {
    dashboards_path = "tests/nowhere"
  }

  expect_failures = [var.dashboards_path]
}
