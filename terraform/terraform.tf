terraform {
  # 1.7: `terraform test` with a mocked provider. OpenTofu has it from 1.8 on.
  required_version = ">= 1.7.0, < 2.0.0"

  required_providers {
    grafana = {
      source  = "grafana/grafana"
      version = ">= 4.0.0, < 5.0.0"
    }
  }

  # Where the state is kept is for `init` to say (backend.hcl.example); without a backend it is a file in this folder.
}
