# The commands of the project. `make` alone lists them.

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

.PHONY: quickstart
quickstart: ## Run emulator, rolecall and a simulated IdP on this machine; ONCE=1 exits after the last step
	@echo "Building rolecall and the emulator (the first time takes some minutes)"
	@cargo build --workspace --bins --locked
	@python3 scripts/quickstart.py

.PHONY: test
test: ## Run everything: formatting, lints, dependency rules, all tests, conformance, the quick start
	@python3 scripts/test.py

.PHONY: crds
crds: ## Regenerate crds/ and the chart's copy from the types
	@UPDATE_GOLDEN=1 cargo test --quiet --locked --lib api::crd
	@mkdir -p charts/rolecall/files/crds && rm -f charts/rolecall/files/crds/*.yaml
	@cp crds/*.yaml charts/rolecall/files/crds/

.PHONY: image
image: ## Build a container image with docker (ENGINE=podman uses podman)
	@$(or $(ENGINE),docker) build --tag rolecall:dev .

.PHONY: bench
bench: ## Compare a release build with a minimal Python/SQLite program on this machine
	@echo "Building a release of rolecall and the emulator (the first time takes some minutes)"
	@cargo build --workspace --bins --locked --release
	@python3 bench/bench.py

.PHONY: fmt
fmt: ## Format the code
	@cargo fmt --all

.PHONY: lint
lint: ## Check formatting and run clippy
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets --locked -- -D warnings
	@cargo clippy --test cluster --locked -- -D warnings

.PHONY: unit
unit: ## Run the Rust tests without the cluster tests
	@cargo test --workspace --locked

.PHONY: cluster
cluster: ## Run the cluster tests on a real control plane; NAME=words selects some of them
	@tools=$$(python3 scripts/cluster_tools.py) && env $$tools \
		cargo test --locked --test cluster -- --test-threads 2 --show-output $(NAME)
