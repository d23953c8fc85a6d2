# The one door: `make help` lists what can be done.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# MLflow reports usage to its makers unless told not to.
export MLFLOW_DISABLE_TELEMETRY ?= true

.DEFAULT_GOAL := help
.PHONY: help setup cv test test-all check bench docs ui requirements clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready ## Build the environment in .venv (Python 3.11, about 6 GB, a minute or two)

$(VENV)/.ready: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v[:2] == (3, 11) else f"Python 3.11 is needed, this is {v[0]}.{v[1]}: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep -o '^uv==[^ ]*' requirements.txt)"
	$(BIN)/uv pip install --python $(BIN)/python --quiet --compile-bytecode --requirements requirements.txt --group dev
	$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps --no-build-isolation --editable .
	touch $@

cv: setup ## Cross-validate on demo tiles and register the best model; OPTIONS="-P data=..." for your own
	mlflow run . -e cv --env-manager local $(OPTIONS)

test: setup ## Run the tests (13 to 25 minutes on 2 cores)
	python -m pytest

test-all: setup ## Run all tests, the slow ones too: fresh environments, pyenv, uv, real data
	$(BIN)/uv pip install --python $(BIN)/python --quiet --group test-all
	python -m pytest -m ""

check: setup ## Check format, lint, security, types and the direction of imports
	ruff format --check .
	ruff check .
	bandit --quiet --configfile pyproject.toml --recursive histo_mlflow tuning
	mypy
	lint-imports

bench: setup ## Measure (an hour, machine otherwise idle); results are printed and written to benchmarks/results/
	@# Before the peers are there: MLflow imports Lightning where it finds it, which takes a second of each start.
	python benchmarks/large_set.py --compressed
	$(BIN)/uv pip install --python $(BIN)/python --quiet --group bench
	python benchmarks/throughput.py
	python benchmarks/report.py
	python benchmarks/serving.py
	python benchmarks/runtimes.py
	python benchmarks/features.py
	python benchmarks/demo_baselines.py

docs: setup ## Build the documentation as a site in build/site; any dead link stops it
	$(BIN)/uv pip install --python $(BIN)/python --quiet --group docs
	NO_MKDOCS_2_WARNING=1 python -m mkdocs build --quiet
	@echo "build/site/index.html"

ui: setup ## Open MLflow's pages on http://127.0.0.1:5000
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow ui $(OPTIONS)

requirements: setup ## Compile requirements.txt, the one pinned list, anew from pyproject.toml
	uv pip compile pyproject.toml --universal --python-version 3.11 --no-header --quiet --generate-hashes --output-file requirements.txt

clean: ## Remove the environment and caches; runs and models stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build *.egg-info
