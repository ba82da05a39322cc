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

.PHONY: simulate
simulate: ## Seeds of the simulation: SEEDS=N runs so many (FIRST=K from there on), SEED=K one of them with its trace
	@cargo test --quiet --locked --lib -- --exact simulation::at_rest_every_seed_agrees_with_the_model --nocapture

.PHONY: soak
soak: ## The long form of every randomised test: twenty times the cases of properties, and SECONDS=1800 of simulation
	@PROPTEST_CASES=5120 cargo test --locked --workspace --lib
	@SEEDS=100000 SECONDS=$(or $(SECONDS),1800) FIRST=$(or $(FIRST),2000) \
		cargo test --quiet --locked --lib -- --exact simulation::at_rest_every_seed_agrees_with_the_model --nocapture

.PHONY: bite
bite: ## Breaks eight rules, one at a time, and says after how many seeds the simulation found each
	@python3 scripts/bite.py $(SEEDS)

.PHONY: cluster
cluster: ## Run the cluster tests on a real control plane; NAME=words selects some of them
	@tools=$$(python3 scripts/cluster_tools.py) && env $$tools \
		cargo test --locked --test cluster -- --test-threads 2 --show-output $(NAME)
