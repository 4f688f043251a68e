# Everything a newcomer needs; each target sets up .venv first when it is missing or out of date.

PYTHON ?= python3
PIP_FLAGS ?=
# Processes that share the tests; each takes about 1 GB.
WORKERS ?= 2
# A short form of `edgekit runners install all`: ARM cores, this CPU with features off, WebAssembly, C, releases.
KITS ?= arm x86-tiers web cpp ort-1.18.0 ort-1.24.4

BIN := .venv/bin
STAMP := .venv/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS)
PYTEST := $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)

.PHONY: help setup demo runners test test-all check docs bench bench-envs bench-all clean

help:
	@echo "make setup     install everything into .venv, by constraints.txt"
	@echo "make demo      take all-MiniLM-L6-v2 to CPU, ARM and Android, and show the report"
	@echo "make runners   install the emulators, runtimes and browser that packages are proved on"
	@echo "make test      the fast tests"
	@echo "make test-all  all tests, the slow ones too"
	@echo "make check     formatting, lint, types, and whether the generated docs are fresh"
	@echo "make docs      write the generated docs again"
	@echo "make bench     measure the README's figures again"
	@echo "make bench-envs  install edgekit's competitors, each into an environment under build/"
	@echo "make bench-all   measure edgekit beside them, for docs/benchmarks.md"
	@echo "make clean     remove .venv, build and caches"

setup: $(STAMP)
	@echo "Ready: $(BIN)/edgekit --help"

# On Linux, PyPI's torch brings gigabytes of CUDA libraries. The CPU build of the same version is taken where
# it can be had: from the indexes that pip is set up with, else from PyTorch's own.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "edgekit needs Python 3.11 or newer; run: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@echo "Setting up .venv (a few minutes, once) ..."
	@$(PYTHON) -m venv .venv
	@$(PIP) --upgrade -c constraints.txt pip
	@$(PIP) --no-deps torch==$(TORCH)+cpu 2>/dev/null \
		|| $(PIP) --no-deps --index-url https://download.pytorch.org/whl/cpu torch==$(TORCH) 2>/dev/null \
		|| true
	@$(PIP) -c constraints.txt --group dev -e '.[export]'
	@touch $(STAMP)

demo: $(STAMP)
	@$(BIN)/python -m tools.demo

# What the tests of the runners need; without it they are skipped, each with its reason.
runners: $(STAMP)
	@tools/device_programs.sh
	@$(BIN)/edgekit runners install --quiet $(KITS)

test: $(STAMP)
	@$(PYTEST) -m "not slow"

test-all: $(STAMP)
	@$(PYTEST)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tools.make_docs --check

docs: $(STAMP)
	$(BIN)/python -m tools.make_docs

bench: $(STAMP)
	$(BIN)/python -m benchmarks.minilm_cpu

bench-envs: $(STAMP)
	@PYTHON=$(BIN)/python bash benchmarks/environments.sh

bench-all: bench-envs
	$(BIN)/python -m benchmarks.harness

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find edgekit tests tools examples benchmarks -name __pycache__ -type d -exec rm -rf {} +
