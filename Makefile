# `make demo` and `make test` work on a fresh machine with Python 3.11 and install what they need into .venv.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --constraint constraints.txt

.PHONY: demo test check install
.DELETE_ON_ERROR:

demo: $(VENV)/.runtime
	$(BIN)/r2m sweep search_spaces/forum_demo.yaml

test: $(VENV)/.development
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

# Lint, types and the import contract.
check: $(VENV)/.development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

install: $(VENV)/.development

# torch comes first, by its pinned version: left to pip's resolver it may bring CUDA's libraries to a machine
# without a GPU.
$(VENV)/.runtime: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable .
	touch $@

$(VENV)/.development: $(VENV)/.runtime
	$(PIP) --editable ".[dev]"
	touch $@
