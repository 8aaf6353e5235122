# In the container the state is on a volume.
terraform {
  backend "local" {
    path = "/state/terraform.tfstate"
  }
}
