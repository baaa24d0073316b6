# NumaVM's commands. Each installs what it needs and does nothing twice; see CONTRIBUTING.md.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# Lab hosts, libvirt and the tests on them need root. The environment goes along, HOME too: cache and
# state stay where the user looks for them.
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo -E env "PATH=$$PATH:/usr/local/sbin:/usr/sbin:/sbin" "HOME=$$HOME")
NUMAVM := .venv/bin/numavm

.PHONY: help setup venv demo down test test-long bench lint format

help: ## Say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: ## Install what is missing: Debian packages, then the Python environment
	@hack/debian.sh
	@hack/venv.sh

venv:
	@hack/venv.sh

demo: setup ## Bring up two NUMA hosts and a control plane, and run a VM on them
	@$(AS_ROOT) $(NUMAVM) demo up

down: venv ## End everything that `make demo` started
	@$(AS_ROOT) $(NUMAVM) demo down

lint: venv ## Check style, types, layers and generated files
	@hack/lint.sh

format: venv ## Format the code
	@.venv/bin/ruff check --quiet --fix; .venv/bin/ruff format

test: setup lint ## Run lint and the suites unit, golden, integration, e2e
	@$(AS_ROOT) hack/test.sh

test-long: setup ## Run sweeps and soaks
	@$(AS_ROOT) .venv/bin/pytest tests -m long

bench: setup ## Print tables of figures, JSON beside them (BENCH_SIZE=full: more seeds, an hour)
	@hack/bench-venv.sh
	@$(AS_ROOT) env PYTHONPATH=tests .venv/bin/python tests/bench/run.py
