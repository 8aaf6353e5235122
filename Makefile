# The commands of the project; `make` alone lists them.

CARGO ?= cargo

.PHONY: help test check-format lint unit doc check-rules check-rendered check-alertmanager check-terraform check-openapi schemathesis deny tools rules dashboards docs bench e2e

help: ## List the commands
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

test: check-format lint tools check-rendered check-rules check-alertmanager check-terraform unit check-openapi doc deny ## Everything that must pass: formatting, lints, rules, all tests, docs, licences

check-format: ## Fail when a file is not formatted
	$(CARGO) fmt --all --check

lint: ## Clippy, warnings denied
	$(CARGO) clippy --locked --all-targets --all-features -- -D warnings

unit: tools ## All tests: unit, integration, doc
	$(CARGO) test --locked --all-features

# As the tests build it: a plain build has other features of the dependencies, and would compile them all once more.
check-openapi: ## Some hundred requests made of the OpenAPI description, where there is Python
	$(CARGO) test --locked --all-features --no-run --quiet --test it
	scripts/schemathesis.sh

schemathesis: ## The same with 10,000 requests, which takes a quarter of an hour or more
	$(CARGO) test --locked --all-features --no-run --quiet --test it
	EXAMPLES=1500 scripts/schemathesis.sh

doc: ## The documentation, warnings denied
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --all-features

tools: ## Unpack the servers that the tests need into target/tools, where they are not installed
	scripts/tools.sh

check-rules: tools ## promtool on the configuration of Prometheus, its rules and their tests
	scripts/check-rules.sh

check-alertmanager: tools ## amtool on the configuration of Alertmanager: that it is valid, and whom alerts reach
	scripts/check-alertmanager.sh

check-terraform: ## terraform fmt, validate and test, where Terraform and its Grafana provider are at hand
	scripts/check-terraform.sh

check-rendered: tools ## Fail when rules or dashboards differ from their Jsonnet sources
	scripts/render.sh --check sources rules dashboards docs

rules: tools ## Render prometheus/rules from its Jsonnet sources
	scripts/render.sh sources rules

dashboards: tools ## Render grafonnet/rendered from its Jsonnet sources; needs grafonnet in vendor/ (jb install)
	scripts/render.sh sources dashboards

docs: tools ## Write docs/metrics.md from the registry and docs/dashboards.md from the rendered dashboards
	$(CARGO) run --locked --quiet --example metrics_reference >target/metrics.md && mv target/metrics.md docs/metrics.md
	scripts/render.sh docs

deny: ## Licences, sources and duplicate versions of the dependencies, where cargo-deny is installed
	scripts/deny.sh

bench: ## What single steps cost, then whole programs side by side; RECORD=1 puts the results into docs/benchmarks.md, and into the sentences that repeat them
	scripts/bench-peers.sh
	$(CARGO) bench --locked --bench micro
	$(CARGO) bench --locked --bench programs -- $(if $(RECORD),--record)

e2e: ## The running stack from end to end; needs Docker and Compose, and takes some minutes
	COMPOSE_E2E=1 $(CARGO) test --locked --test stack e2e:: -- --nocapture
