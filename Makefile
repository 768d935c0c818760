# One command each; `make setup` runs by itself where it is needed and takes no time when nothing changed.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup demo test test-all check bench clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
	touch $@

demo: $(READY)
	$(BIN)/edgeseq run movie-sentiment

test: $(READY)
	$(BIN)/python -m pytest -n 2 -m 'not slow'

test-all: $(READY)
	$(BIN)/python -m pytest -n 2

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy edgeseq tests
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n 2 -m 'not slow'

bench: $(READY)
	$(BIN)/python -m tests.benchmarks.recurrent
	$(BIN)/python -m tests.benchmarks.encoders
	$(BIN)/python -m tests.benchmarks.decoders
	$(BIN)/python -m tests.benchmarks.keras_models

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
