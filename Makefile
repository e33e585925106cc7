# Everything a newcomer types. `make` alone lists it. Nothing here needs more than
# Python 3.11+, make and a package index that pip can reach.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# `make setup PYTHON=...` names the Python of a new .venv; else the newest of these is taken.
PYTHON ?=
PYTHONS := $(if $(PYTHON),$(PYTHON),.venv/bin/python python3.13 python3.12 python3.11 python3 python)
BIN := .venv/bin
ROOMS := bot consumers infra model schemas tests

.PHONY: help setup demo test lint types imports fast chaos bench bench-gpu format lock docs clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-9s %s\n", $$1, $$2 }'

setup: ## make .venv with everything in it, from the hash-locked requirements
	@for python in $(PYTHONS); do \
		if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then exec $$python infra/setup.py; fi; \
	done; \
	echo "setup: none of these is a Python 3.11 or newer: $(PYTHONS). Install one (Debian or Ubuntu: apt-get install python3 python3-venv), or name it: make setup PYTHON=/path/to/python3.11" >&2; exit 1

demo: setup ## watch mentions and messages go through Kafka and be answered by a real model
	@$(BIN)/twite demo || { status=$$?; [ $$status -eq 130 ] || exit $$status; } # 130: Ctrl-C

test: setup lint types imports ## lint, types, import contracts and all tests, Kafka included
	@$(BIN)/python -m pytest -m "not (browser or gpu or chaos)"

fast: setup ## only the fast tests: no Kafka, no real model
	@$(BIN)/python -m pytest

chaos: setup ## kill, stop and cut everything for three minutes, then count what is lost or doubled
	@$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(LOGS),--logs $(LOGS))

bench: setup ## measure the runtime, short form: docs/benchmarks.md and its JSON files
	@$(BIN)/python -m tests.bench --quick

bench-gpu: setup ## on a machine with CUDA: the engine against a bare loop and the card (P4), and P3
	@$(BIN)/python -m tests.bench.gpu && $(BIN)/python -m tests.bench P3

lint: setup ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: setup ## mypy --strict on all rooms and the tests
	@$(BIN)/mypy $(ROOMS:%=-p %)

imports: setup ## which room may know which (import-linter)
	@$(BIN)/lint-imports

format: setup ## let ruff put things right
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: setup ## resolve pyproject.toml into infra/requirements/lock.txt anew (maintainers)
	@$(BIN)/python infra/lock.py

docs: setup ## write the pages that are made from code (settings, metrics, contract)
	@$(BIN)/python -m bot.pages docs
	@$(BIN)/twite schemas export schemas/published

clean: ## remove .venv and what the tools left behind
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
