output "dashboard_urls" {
  description = "Address of each dashboard, by uid."
  value       = { for uid, dashboard in grafana_dashboard.this : uid => "${local.public_url}/d/${dashboard.uid}" }
}

output "folder_url" {
  description = "Address of the dashboards' folder."
  value       = "${local.public_url}/dashboards/f/${grafana_folder.this.uid}"
}

output "prometheus_uid" {
  description = "UID of the Prometheus data source."
  value       = grafana_data_source.prometheus.uid
}

output "service_account_token" {
  description = "Token of the service account, null where there is none."
  value       = one([for token in grafana_service_account_token.this : token.key])
  sensitive   = true
}
