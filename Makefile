# On a fresh machine with Python >= 3.11 and make: `make test`. Everything lands in .venv.
# Where the default index serves the CUDA build of torch and you want the CPU one, point pip there
# with its own environment variables (PIP_INDEX_URL, PIP_FIND_LINKS) before the first `make`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=
# A process a core, a file of tests in one process: what a file's fixtures make is made once. Each
# with one thread, or the processes fight over the cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=logical --dist=loadfile

# The stamp's name carries the checksum of what decides the environment, so a checkout that only
# changed time stamps does not reinstall, and a change of a version does.
KEY := $(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)
STAMP := $(VENV)/.installed-$(KEY)

.DEFAULT_GOAL := help
.PHONY: help install demo test quick check format wheel clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## create .venv and install geomkit with its test tools

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else "geomkit needs Python >= 3.11, got %d.%d: make PYTHON=python3.12 ..." % v[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch==$$(sed -n 's/^torch==//p' constraints.txt)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	@rm -f $(VENV)/.installed-*
	@touch $@

demo: $(STAMP) ## train, merge, capture, analyze and report on the embedded sandbox
	$(BIN)/geomkit demo

test: $(STAMP) ## run every test (browser and GPU tests skip where there is none, and say so)
	$(PYTEST) $(PYTEST_ARGS)

quick: $(STAMP) ## run the tests that are neither slow nor need a browser
	$(PYTEST) -m "not slow and not browser" $(PYTEST_ARGS)

check: $(STAMP) ## lint, formatting, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## rewrite the sources in the house format
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

wheel: $(STAMP) ## build dist/*.tar.gz and dist/*.whl and check what is inside
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/check-wheel-contents dist/*.whl

clean: ## remove what was built, keep .venv
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
