# What is applied follows the files: nothing in the configuration names a dashboard.

mock_provider "grafana" {}

variables {
  grafana_auth = "admin:admin"
}

run "applies_every_rendered_dashboard" {
  assert {
    condition     = length(grafana_dashboard.this) == length(fileset("../grafonnet/rendered", "*.json"))
    error_message = "${length(grafana_dashboard.this)} dashboards are applied, not one a file."
  }

  assert {
    condition = toset([for dashboard in grafana_dashboard.this : sha256(dashboard.config_json)]) == toset([
      for file in fileset("../grafonnet/rendered", "*.json") : filesha256("../grafonnet/rendered/${file}")
    ])
    error_message = "A dashboard's JSON is not that of its file."
  }

  assert {
    condition     = alltrue([for uid, dashboard in grafana_dashboard.this : jsondecode(dashboard.config_json).uid == uid])
    error_message = "A dashboard stands under another uid than its own: ${join(", ", keys(grafana_dashboard.this))}."
  }

  assert {
    condition     = contains(keys(grafana_dashboard.this), "api-monitoring")
    error_message = "The main dashboard is missing."
  }
}

run "puts_dashboards_in_the_folder_and_takes_over_those_that_are_there" {
  assert {
    condition     = alltrue([for dashboard in grafana_dashboard.this : dashboard.folder == grafana_folder.this.uid])
    error_message = "A dashboard is outside the folder."
  }

  assert {
    condition     = alltrue([for dashboard in grafana_dashboard.this : dashboard.overwrite])
    error_message = "A dashboard that Grafana has already would be a conflict."
  }
}

run "applies_a_file_that_is_added" {
  variables {
    dashboards_path = "tests/fixtures/added"
  }

  assert {
    condition     = keys(grafana_dashboard.this) == ["fixture-one", "fixture-two"]
    error_message = "These are applied instead of the folder's two: ${join(", ", keys(grafana_dashboard.this))}."
  }
}

run "rejects_two_dashboards_with_one_uid" {
  command = plan

  variables {
    dashboards_path = "tests/fixtures/doubled"
  }

  expect_failures = [grafana_folder.this]
}

run "rejects_a_folder_with_a_dashboards_uid" {
  command = plan

  variables {
    folder_uid = "api-monitoring"
  }

  expect_failures = [grafana_folder.this]
}
