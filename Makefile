# The commands of the project; `make` alone lists them.

CARGO ?= cargo

.PHONY: help test check-format lint unit doc rules deny tools bench

help: ## List the commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

test: check-format lint tools unit doc rules deny ## Everything that must pass: formatting, lints, all tests, docs, rules, licences

check-format: ## Fail when a file is not formatted
	$(CARGO) fmt --all --check

lint: ## Clippy, warnings denied
	$(CARGO) clippy --locked --all-targets --all-features -- -D warnings

unit: tools ## All tests: unit, integration, doc
	$(CARGO) test --locked --all-features

doc: ## The documentation, warnings denied
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --all-features

tools: ## Unpack the servers that the tests need into target/tools, where they are not installed
	scripts/tools.sh

rules: tools ## promtool on whatever is under prometheus/
	scripts/check-rules.sh

deny: ## Licences, sources and duplicate versions of the dependencies, where cargo-deny is installed
	scripts/deny.sh

bench: ## What being monitored costs, what batch work costs, and what the service takes at rest
	$(CARGO) bench --locked --bench cost
	$(CARGO) bench --locked --bench batch
	scripts/footprint.sh
