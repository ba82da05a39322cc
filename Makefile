# The commands of the project. `make` alone lists them.

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

.PHONY: quickstart
quickstart: ## Emulator, rolecall and a played IdP on this machine; ONCE=1 ends after the last step
	@echo "Building rolecall and the emulator (the first time takes some minutes)"
	@cargo build --workspace --bins --locked
	@python3 scripts/quickstart.py

.PHONY: test
test: ## Everything there is: formatting, lints, dependency rules, all tests, conformance, the quick start
	@python3 scripts/test.py

.PHONY: crds
crds: ## Write crds/ and the chart's copy of it anew from the types
	@UPDATE_GOLDEN=1 cargo test --quiet --locked --lib api::crd
	@mkdir -p charts/rolecall/files/crds && rm -f charts/rolecall/files/crds/*.yaml
	@cp crds/*.yaml charts/rolecall/files/crds/

.PHONY: image
image: ## A container image, with the engine that is at hand (ENGINE=podman for another than docker)
	@$(or $(ENGINE),docker) build --tag rolecall:dev .

.PHONY: bench
bench: ## Figures of a release build beside a bare Python/SQLite program, on this machine
	@echo "Building a release of rolecall and the emulator (the first time takes some minutes)"
	@cargo build --workspace --bins --locked --release
	@python3 bench/bench.py

.PHONY: fmt
fmt: ## Format the code
	@cargo fmt --all

.PHONY: lint
lint: ## Formatting and clippy only
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets --locked -- -D warnings
	@cargo clippy --test cluster --locked -- -D warnings

.PHONY: unit
unit: ## Rust tests only, without the cluster tests
	@cargo test --workspace --locked

.PHONY: cluster
cluster: ## The cluster tests only, on a real control plane; NAME=words picks some of them
	@tools=$$(python3 scripts/cluster_tools.py) && env $$tools \
		cargo test --locked --test cluster -- --test-threads 2 --show-output $(NAME)
