# The folder, who may do what in it, and the service account.

mock_provider "grafana" {}

variables {
  grafana_auth = "admin:admin"
}

run "the_folder_has_a_fixed_uid" {
  assert {
    condition     = grafana_folder.this.uid == "api-monitoring-folder"
    error_message = "Its uid is ${grafana_folder.this.uid}."
  }

  assert {
    condition     = grafana_folder.this.title == "API Monitoring"
    error_message = "Its title is ${grafana_folder.this.title}."
  }
}

run "the_folder_follows_its_variables" {
  variables {
    folder_title = "Users API"
    folder_uid   = "users_api-2"
  }

  assert {
    condition     = grafana_folder.this.uid == "users_api-2" && grafana_folder.this.title == "Users API"
    error_message = "It is ${grafana_folder.this.uid}, ${grafana_folder.this.title}."
  }
}

run "viewers_view_and_editors_edit" {
  assert {
    condition     = grafana_folder_permission.this.folder_uid == grafana_folder.this.uid
    error_message = "The permissions are those of another folder."
  }

  assert {
    condition = toset([
      for given in grafana_folder_permission.this.permissions : "${given.role}: ${given.permission}"
    ]) == toset(["Viewer: View", "Editor: Edit"])
    error_message = "Others may do other things."
  }
}

run "there_is_no_service_account_unless_it_is_named" {
  assert {
    condition     = length(grafana_service_account.this) == 0 && length(grafana_service_account_token.this) == 0
    error_message = "There is one."
  }

  assert {
    condition     = output.service_account_token == null
    error_message = "There is a token."
  }
}

run "a_named_service_account_edits_and_has_a_token" {
  variables {
    service_account_name = "dashboards-ci"
  }

  assert {
    condition     = [for account in grafana_service_account.this : "${account.name}: ${account.role}"] == ["dashboards-ci: Editor"]
    error_message = "It is another, or has other rights."
  }

  assert {
    condition = (
      grafana_service_account_token.this["dashboards-ci"].service_account_id ==
      grafana_service_account.this["dashboards-ci"].id
    )
    error_message = "The token is that of another account."
  }

  assert {
    condition     = output.service_account_token == grafana_service_account_token.this["dashboards-ci"].key
    error_message = "The output is another token."
  }
}
