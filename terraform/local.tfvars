# The local stack of docker-compose.yml, as it is without a .env file. For any other Grafana, set these in the environment
# (TF_VAR_grafana_auth) or in a file of your own that stays out of git.
grafana_url  = "http://localhost:3000"
grafana_auth = "admin:admin"
