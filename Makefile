# Whatever CI runs, a person can run with the same word. `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --warn-undefined-variables --no-builtin-rules
.DEFAULT_GOAL := help

# Always the whole workspace: building one crate alone would choose other features and build much of the graph again.
CARGO := cargo
WORKSPACE := --workspace --locked
DENY_VERSION := 0.20.2
HAS_NEXTEST := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo yes || true)

# Given by the caller: `make run FILE=path ONCE=1`.
export FILE ?=
export ONCE ?=

.PHONY: help check fmt lint purity deny doc test sim process bench run clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

check: fetch deny fmt lint doc purity ## everything but the tests, as CI does it

fmt: ## check the format
	$(CARGO) fmt --all --check

lint: ## clippy, warnings are errors
	$(CARGO) clippy $(WORKSPACE) --all-targets -- -D warnings

purity: ## contract, call graph, layers, file length; prints the rules with their tests
	$(CARGO) test $(WORKSPACE) --test contract -- --nocapture

deny: ## licences, banned crates, sources
	@$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install cargo-deny --version $(DENY_VERSION) --locked
	$(CARGO) deny --locked check bans licenses sources

doc: ## documentation, broken links are errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(WORKSPACE) --no-deps

# The binary comes first: tests with real processes start it. With the tests, because they choose the features. With grpcurl
# in PATH, or named by GRPCURL, its answers are compared too; `.ci/run` installs it.
test: ## every test
	$(CARGO) build $(WORKSPACE) --bins --tests
ifeq ($(HAS_NEXTEST),yes)
	$(CARGO) nextest run $(WORKSPACE)
else
	$(CARGO) test $(WORKSPACE) --lib --bins --tests
endif

sim: ## the simulation alone
	$(CARGO) test $(WORKSPACE) --test sim

process: ## the tests with real processes alone
	$(CARGO) build $(WORKSPACE) --bins --tests
	$(CARGO) test $(WORKSPACE) --test process

# Two builds: the product is measured as it is delivered, without what tests add to its crates.
bench: ## how fast, next to the tools that people use today
	$(CARGO) build --release --locked --package lockstep
	$(CARGO) run --release --locked --package lockstep-tests --bin bench

run: ## three servers on this machine: register, watch, compare; FILE=path, ONCE=1 ends by itself
	@tests/run/run.sh

clean: ## remove what was built and the servers of `make run`
	$(CARGO) clean
	rm -rf .lockstep-run

.PHONY: fetch
fetch:
	$(CARGO) fetch --locked
