variable "alertmanager_uid" {
  description = "UID of the Alertmanager data source."
  type        = string
  default     = "alertmanager"
  nullable    = false

  validation {
    condition     = can(regex("^[a-zA-Z0-9_-]{1,40}$", var.alertmanager_uid))
    error_message = "alertmanager_uid must have 1 to 40 letters, digits, \"-\" or \"_\"."
  }
}

variable "alertmanager_url" {
  description = "URL of Alertmanager as Grafana reaches it; null for none: then there is no data source for it."
  type        = string
  default     = "http://alertmanager:9093"

  validation {
    condition     = var.alertmanager_url == null || can(regex("^https?://[^/?#[:space:]]+", var.alertmanager_url))
    error_message = "alertmanager_url must be a URL with a scheme, such as http://alertmanager:9093, or null."
  }
}

variable "dashboards_path" {
  description = "Folder of the dashboards' JSON files, one a dashboard, each with a uid of its own; null for the ones of this project."
  type        = string
  default     = null

  validation {
    condition     = var.dashboards_path == null || try(length(fileset(var.dashboards_path, "*.json")) > 0, false)
    error_message = "dashboards_path must be a folder with at least one .json file."
  }
}

variable "folder_title" {
  description = "Title of the folder that the dashboards are in."
  type        = string
  default     = "API Monitoring"
  nullable    = false

  validation {
    condition     = trimspace(var.folder_title) != ""
    error_message = "folder_title must not be empty or blank."
  }
}

variable "folder_uid" {
  # Another one than any dashboard's: up to Grafana 11 folders and dashboards share their uids.
  description = "UID of the folder; must differ from every dashboard's."
  type        = string
  default     = "api-monitoring-folder"
  nullable    = false

  validation {
    condition     = can(regex("^[a-zA-Z0-9_-]{1,40}$", var.folder_uid))
    error_message = "folder_uid must have 1 to 40 letters, digits, \"-\" or \"_\"."
  }
}

variable "grafana_auth" {
  description = "Token of a service account with the role Admin, or USER:PASSWORD of an administrator. local.tfvars has the local stack's."
  type        = string
  sensitive   = true
  nullable    = false

  validation {
    condition     = trimspace(var.grafana_auth) != ""
    error_message = "grafana_auth must be a token or USER:PASSWORD, not empty."
  }
}

variable "grafana_public_url" {
  description = "URL of Grafana as people's browsers reach it, for the outputs; null where it is grafana_url."
  type        = string
  default     = null

  validation {
    condition     = var.grafana_public_url == null || can(regex("^https?://[^/?#[:space:]]+", var.grafana_public_url))
    error_message = "grafana_public_url must be a URL with a scheme, such as https://grafana.example.org, or null."
  }
}

variable "grafana_url" {
  description = "URL of Grafana as Terraform reaches it. The default is the local stack's."
  type        = string
  default     = "http://localhost:3000"
  nullable    = false

  validation {
    condition     = can(regex("^https?://[^/?#[:space:]]+", var.grafana_url))
    error_message = "grafana_url must be a URL with a scheme, such as https://grafana.example.org."
  }
}

variable "notification_webhook_url" {
  description = "Where Grafana itself posts Prometheus' firing alerts, for those without Alertmanager; null for nowhere."
  type        = string
  default     = null
  sensitive   = true

  validation {
    condition     = var.notification_webhook_url == null || can(regex("^https?://[^/?#[:space:]]+", var.notification_webhook_url))
    error_message = "notification_webhook_url must be a URL with a scheme, such as https://pager.example.org/hooks/1, or null."
  }
}

variable "prometheus_is_default" {
  description = "Whether the Prometheus data source is the organisation's default."
  type        = bool
  default     = true
  nullable    = false
}

variable "prometheus_uid" {
  description = "UID of the Prometheus data source."
  type        = string
  default     = "prometheus"
  nullable    = false

  validation {
    condition     = can(regex("^[a-zA-Z0-9_-]{1,40}$", var.prometheus_uid))
    error_message = "prometheus_uid must have 1 to 40 letters, digits, \"-\" or \"_\"."
  }
}

variable "prometheus_url" {
  description = "URL of Prometheus as Grafana reaches it. The default is the local stack's."
  type        = string
  default     = "http://prometheus:9090"
  nullable    = false

  validation {
    condition     = can(regex("^https?://[^/?#[:space:]]+", var.prometheus_url))
    error_message = "prometheus_url must be a URL with a scheme, such as http://prometheus:9090."
  }
}

variable "scrape_interval_seconds" {
  # From it Grafana works out $__rate_interval: too small a value makes panels empty, too large a one makes them blunt.
  description = "scrape_interval of prometheus/prometheus.yml, in seconds."
  type        = number
  default     = 15
  nullable    = false

  validation {
    condition     = var.scrape_interval_seconds >= 1 && floor(var.scrape_interval_seconds) == var.scrape_interval_seconds
    error_message = "scrape_interval_seconds must be a whole number of at least 1."
  }
}

variable "service_account_name" {
  description = "Name of a service account with a token, for automation that edits dashboards; null for none."
  type        = string
  default     = null

  validation {
    condition     = var.service_account_name == null || try(trimspace(var.service_account_name) != "", false)
    error_message = "service_account_name must not be empty or blank; null makes none."
  }
}
