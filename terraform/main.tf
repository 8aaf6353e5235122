locals {
  dashboards_path = coalesce(var.dashboards_path, "${path.module}/../grafonnet/rendered")

  # By uid: a file that is added is applied. Two with the same uid are refused below.
  dashboard_files = {
    for file in fileset(local.dashboards_path, "*.json") :
    jsondecode(file("${local.dashboards_path}/${file}")).uid => file...
  }

  dashboards = { for uid, files in local.dashboard_files : uid => file("${local.dashboards_path}/${files[0]}") }

  public_url = trimsuffix(coalesce(var.grafana_public_url, var.grafana_url), "/")

  # Instances follow from variables alone: where they follow from another resource, `terraform import` works no more.
  alertmanagers    = toset(var.alertmanager_url == null ? [] : ["this"])
  service_accounts = toset(var.service_account_name == null ? [] : [var.service_account_name])
  # Whether there is one is no secret, only which.
  notifications = toset(nonsensitive(var.notification_webhook_url != null) ? ["this"] : [])
}

resource "grafana_data_source" "prometheus" {
  type       = "prometheus"
  name       = "Prometheus"
  uid        = var.prometheus_uid
  url        = var.prometheus_url
  is_default = var.prometheus_is_default

  json_data_encoded = jsonencode(merge(
    {
      # POST: a query may be longer than a URL.
      httpMethod     = "POST"
      manageAlerts   = true
      prometheusType = "Prometheus"
      timeInterval   = "${var.scrape_interval_seconds}s"
    },
    # Silences for Prometheus' alerts are made there.
    { for alertmanager in grafana_data_source.alertmanager : "alertmanagerUid" => alertmanager.uid },
  ))
}

resource "grafana_data_source" "alertmanager" {
  for_each = local.alertmanagers

  type = "alertmanager"
  name = "Alertmanager"
  uid  = var.alertmanager_uid
  url  = var.alertmanager_url

  json_data_encoded = jsonencode({
    handleGrafanaManagedAlerts = false
    implementation             = "prometheus"
  })
}

resource "grafana_folder" "this" {
  title = var.folder_title
  uid   = var.folder_uid

  lifecycle {
    precondition {
      condition     = !contains(keys(local.dashboards), var.folder_uid)
      error_message = "folder_uid \"${var.folder_uid}\" is a dashboard's uid already."
    }

    precondition {
      condition     = alltrue([for files in local.dashboard_files : length(files) == 1])
      error_message = "Each dashboard needs a uid of its own: ${join("; ", [for uid, files in local.dashboard_files : "${join(", ", files)} have \"${uid}\"" if length(files) > 1])}."
    }
  }
}

# All of the folder's permissions: what is not listed is taken away. Administrators always have every right.
resource "grafana_folder_permission" "this" {
  folder_uid = grafana_folder.this.uid

  permissions {
    role       = "Viewer"
    permission = "View"
  }

  permissions {
    role       = "Editor"
    permission = "Edit"
  }
}

resource "grafana_dashboard" "this" {
  for_each = local.dashboards

  folder      = grafana_folder.this.uid
  config_json = each.value
  message     = "Applied by Terraform"

  # A dashboard of this uid that Terraform does not know (its state was lost) is taken over, not an error.
  overwrite = true
}

resource "grafana_service_account" "this" {
  for_each = local.service_accounts

  name = each.value
  role = "Editor"
}

resource "grafana_service_account_token" "this" {
  for_each = local.service_accounts

  name               = "terraform"
  service_account_id = grafana_service_account.this[each.key].id
}
