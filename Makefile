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
unit: ## Run the unit and property tests, with 200 seeds of the simulation (SEEDS=N) instead of all
	@SEEDS=$(or $(SEEDS),200) cargo test --workspace --locked --lib

.PHONY: integration
integration: ## Run the integration tests and those of chart, documentation and layers; NAME=words selects some of them
	@cargo test --workspace --locked --test it --test chart --test docs --test layering -- --test-threads 4 $(NAME)

.PHONY: fuzz
fuzz: ## Fuzz what outsiders send: TARGET=filter|path|patch|manifest|glob (all at a time), SECONDS=600, SEED=N
	@SECONDS=$(or $(SECONDS),600) SEED=$(or $(SEED),$(shell date +%s)) \
		cargo test --quiet --locked --lib -- fuzz::$(if $(TARGET),$(TARGET)_) --nocapture

.PHONY: simulate
simulate: ## Seeds of the simulation: SEEDS=N runs so many (FIRST=K from there on), SEED=K one of them with its trace
	@cargo test --quiet --locked --lib -- --exact simulation::at_rest_every_seed_agrees_with_the_model --nocapture

.PHONY: soak
soak: ## The long form of every randomised test: twenty times the cases of properties, SECONDS=1800 of simulation, fuzzing
	@PROPTEST_CASES=5120 cargo test --locked --workspace --lib
	@SEEDS=100000 SECONDS=$(or $(SECONDS),1800) FIRST=$(or $(FIRST),2000) \
		cargo test --quiet --locked --lib -- --exact simulation::at_rest_every_seed_agrees_with_the_model --nocapture
	@$(MAKE) --no-print-directory fuzz SECONDS=300

.PHONY: bite
bite: ## Breaks nine rules, one at a time, and says after how many seeds the simulation found each
	@python3 scripts/bite.py $(SEEDS)

.PHONY: cluster
cluster: ## Run the cluster tests on a real control plane; NAME=words selects some of them
	@tools=$$(python3 scripts/cluster_tools.py) && env $$tools \
		cargo test --locked --test cluster -- --test-threads 2 --show-output $(NAME)
