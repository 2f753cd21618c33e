# Headwater's commands. `make demo` and `make test` set up everything they need in .venv; a second call finds it done.
#
# Needs Python 3.11 or newer, pip and make. Another interpreter: `make demo PYTHON=python3.12`. Where packages come from
# is pip's own configuration (PIP_INDEX_URL, PIP_FIND_LINKS, pip.conf); what versions, constraints.txt.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# The first interpreter that runs and is new enough; a name on PATH alone proves neither.
PYTHON ?= $(firstword $(shell for p in python3.11 python3 python3.12 python3.13 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done))
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
LAKE ?= lake
RECIPE ?= recipes/demo.yaml
PYTEST_ARGS ?=
START := $(shell date +%s)

export PYTHONUTF8 := 1
export DO_NOT_TRACK := 1

.PHONY: help demo setup setup-dev test test-all lint docs audit bench clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.ready  ## make .venv with everything a run needs
setup-dev: $(VENV)/.ready-dev  ## the same, and what the checks need

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then echo "Headwater needs Python 3.11 or newer: install it, or name it with make PYTHON=..." >&2; exit 2; fi
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@# Debian keeps ensurepip apart (python3-venv); where it is missing, the interpreter's own pip fills the environment.
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { \
		$(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install -q pip; } || { \
		rm -rf $(VENV); echo "no virtual environment could be made: install python3-venv or pip" >&2; exit 2; }
	@# A newer pip reads a hundred packages' metadata in a third of the time; where none can be had, the old one will do.
	@$(PIP) install -qq --upgrade pip >/dev/null 2>&1 || true

$(VENV)/.ready: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing Headwater into $(VENV) (versions: constraints.txt)"
	@$(PIP) install -q -c constraints.txt -e .
	@touch $@

$(VENV)/.ready-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing Headwater and its checks into $(VENV) (versions: constraints.txt)"
	@$(PIP) install -q -c constraints.txt -e '.[dev]'
	@touch $(VENV)/.ready $@

demo: setup  ## set up, run recipes/demo.yaml into ./lake, say what to try next
	@ready=$$(date +%s); $(BIN)/headwater run $(RECIPE) --lake $(LAKE); \
	printf '\nset-up took %d s, the run %d s\n' $$((ready - $(START))) $$(($$(date +%s) - ready))
	@printf '%s\n' \
		'' \
		'What to try next:' \
		'  $(BIN)/headwater chat                          talk to the model you just trained' \
		'  $(BIN)/headwater query "select verdict, rule, count(*) from demo.ledger group by all order by all"' \
		'  $(BIN)/headwater explain pydoc:/json           what became of one document, and why' \
		'  $(BIN)/headwater trace ppo                     everything the last model rests on' \
		'  $(BIN)/headwater report last                   one HTML page about the run' \
		'  make demo                                     again: every stage is cached'

lint: setup-dev  ## ruff, mypy, import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

test: lint  ## set up, then lint, types, import contracts and the tests
test-all: lint  ## the same with the slow tests

# pytest comes last, so that the last line is its summary. A process a core, at most 4 (tests/conftest.py shares them
# out); PYTEST_ARGS='-n 0' for one.
test test-all:
	@printf '\nset-up, lint and types took %d s; now the tests\n' $$(($$(date +%s) - $(START)))
	@$(BIN)/python -m pytest -n logical --maxprocesses 4 --max-worker-restart 0 --dist loadscope --durations=15 --durations-min=1 $(if $(filter test-all,$@),-m "slow or not slow") $(PYTEST_ARGS)

docs: setup-dev  ## the documentation as a site, in site/; every link is checked
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir site && echo "site/index.html"

# Advice, never a failure: known weaknesses come from a service of the network, which may not be there.
audit: setup-dev  ## what is installed as an SBOM (sbom.json), and which of it has known weaknesses
	-@$(BIN)/cyclonedx-py environment --output-reproducible --of JSON -o sbom.json $(BIN)/python && echo "sbom.json"
	-@timeout 300 $(BIN)/pip-audit --progress-spinner off --skip-editable --timeout 15

# Not what has to be told a folder, a lake, another tree or a GPU, nor what others run or what writes tables of the code.
ASKING := $(patsubst %,benchmarks/%.py,build_% dialogue_columns gpu local_lake peer_% quality serve service spikes)

bench: setup-dev  ## the benchmarks that need nothing said (long; see benchmarks/README.md)
	@for script in $(filter-out $(ASKING),$(wildcard benchmarks/[a-z]*.py)); do \
		echo "== $$script"; $(BIN)/python $$script || echo "$$script ended with status $$?" >&2; done

clean:  ## remove .venv and the caches; the lake stays
	rm -rf $(VENV) build dist site sbom.json *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
