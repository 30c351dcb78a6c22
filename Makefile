# The two commands: `make quickstart` and `make test`. Both make .venv first when it is not there.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: help quickstart test lint types docs tests test-floors test-faults bench wheel format clean

help:
	@echo "make quickstart   install, then search, train and compare on scikit-learn's digits"
	@echo "make test         all that a change must pass: lint, types, docs and tests"
	@echo "make lint         formatting and lint"
	@echo "make types        types"
	@echo "make docs         the documentation's site, in build/site/index.html"
	@echo "make tests        the tests, on two cores, within ten minutes"
	@echo "make test-floors  the tests on the oldest versions that pyproject.toml allows"
	@echo "make test-faults  kill, fill, damage: every fault again and again, and a table of what was survived"
	@echo "make bench        speed and memory against plain DARTS and timm's ViT, as one JSON object"
	@echo "make wheel        the wheel, in dist/, installed in an empty environment and run there"
	@echo "make format       put formatting and imports right"
	@echo "make clean        remove environments, caches and what was built"

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
		|| { echo "dasvit needs Python 3.11 to 3.13: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev,docs]'
	@touch $@

quickstart: $(VENV)/.installed
	$(BIN)/dasvit quickstart

test: lint types docs tests

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.installed
	$(BIN)/mypy

# Warnings are errors: dead links, dead anchors, functions of the reference that are gone.
docs: $(VENV)/.installed
	$(BIN)/zensical build --strict

tests: $(VENV)/.installed
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --durations 15

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Each floor of pyproject.toml ("name>=x") becomes an exact version.
test-floors:
	$(PYTHON) -m venv $(VENV)-floors
	$(VENV)-floors/bin/python -m pip install --quiet --upgrade pip
	$(PYTHON) tools/floors.py > $(VENV)-floors/constraints.txt
	$(VENV)-floors/bin/python -m pip install --quiet --editable '.[dev,hub,ptflops]' --constraint $(VENV)-floors/constraints.txt
	$(VENV)-floors/bin/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# WHEEL=--borrow takes the dependencies of .venv instead of installing them again.
wheel: $(VENV)/.installed
	$(BIN)/python tools/wheel.py $(WHEEL)

bench: $(VENV)/.installed
	@$(BIN)/python benchmarks/bench.py

# Every file with a test that provokes faults and counts them: by the fixture, a marker or `record`.
FAULTS = $(shell grep -lE 'faults: Faults|mark[.]fault|record.record_property' tests/test_*.py)

# The tests of faults, long versions included; the table at the end is that of docs/reliability.md.
test-faults: $(VENV)/.installed
	$(BIN)/pytest --numprocesses 2 --dist worksteal -m "faults or not faults" $(FAULTS)

clean:
	rm -rf $(VENV) $(VENV)-floors build dist .cache .mypy_cache .ruff_cache .pytest_cache
