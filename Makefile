# Every target sets up what it needs; a fresh machine needs Python 3.11 or 3.12, git and make.

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format bench lock clean

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_DIR ?= .demo

# The first interpreter that runs and fits pyproject.toml.
PYTHON ?= $(shell for name in python3.11 python3.12 python3; do \
	if $$name -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null; \
	then command -v $$name; break; fi; done)
# A uv on the PATH that runs; otherwise one that pip puts into the environment.
UV ?= $(shell uv --version >/dev/null 2>&1 && command -v uv || echo $(BIN)/uv)

# Dozens of processes import torch, Ray and MLflow; without bytecode each would compile them anew.
export PYTHONDONTWRITEBYTECODE :=

help: ## Show the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(STAMP) ## Make .venv from requirements.lock

$(STAMP): requirements.lock pyproject.toml
	@test -x $(BIN)/python || test -n "$(PYTHON)" || { echo "no Python 3.11 or 3.12 found: install one or set PYTHON=/path/to/it" >&2; exit 1; }
ifeq ($(UV),$(BIN)/uv)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(UV) || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
else
	test -x $(BIN)/python || $(UV) venv --quiet --python $(PYTHON) $(VENV)
endif
	$(UV) pip install --quiet --python $(BIN)/python -r requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP) ## Render footage, then ingest, train, evaluate and segment it (at most 8 minutes)
	$(BIN)/python -m pipelines.demo $(DEMO_DIR)

test: $(STAMP) ## Unit, integration and end-to-end tests
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadscope $(PYTEST_ARGS)

check: $(STAMP) ## Format, lint, strict types, architecture
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py

format: $(STAMP) ## Rewrite the sources as check wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## Measure, with ratios against straightforward implementations
	$(BIN)/python -m benchmarks

lock: ## Resolve pyproject.toml into requirements.lock
	@test "$(UV)" != "$(BIN)/uv" || test -x $(UV) || { $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet uv; }
	$(UV) pip compile --quiet --universal --no-emit-index-url --no-header --no-annotate --python-version 3.11 --group dev pyproject.toml -o requirements.lock

clean: ## Remove the environment, the demo and all caches
	rm -rf $(VENV) $(DEMO_DIR) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
