# Everything from a fresh clone: `make demo`, `make test`. Needs Python 3.10
# to 3.13 with its venv module; another one than python3 is chosen with
# make PYTHON=python3.11 demo.
PYTHON ?= python3
STAMP := .venv/.installed
BIN := .venv/bin/python

# Imported modules are compiled once, whatever the shell sets: torch takes ten
# seconds to compile, in every process of the tests.
unexport PYTHONDONTWRITEBYTECODE

# The environment of a checkout that was moved points to the old place.
ifneq "$(shell cat $(STAMP) 2>/dev/null)" "$(CURDIR)"
.PHONY: $(STAMP)
endif
.PHONY: help install demo test test-cluster test-page lint format docs
.PHONY: docs-serve clean

help:
	@echo 'make demo     install, train a dense and a dynamic network, compare'
	@echo 'make test     install, run the tests (ARGS="-k gate" picks some)'
	@echo 'make test-cluster  run the tests on a Slurm that it starts here (as root)'
	@echo 'make test-page  run every command of docs/reproduce.md, at a tiny size'
	@echo 'make lint     install, check style and types; make format corrects style'
	@echo 'make docs     build the documentation site into site/'
	@echo 'make docs-serve  build it and show it at http://127.0.0.1:8000'
	@echo 'make install  only install, into .venv'
	@echo 'make clean    remove .venv and everything that was built'
	@echo 'PYTHON=...    the Python to use, 3.10 to 3.13 (now: $(PYTHON))'

demo: $(STAMP)
	@$(BIN) tools/demo.py $(ARGS)

# The tensors of the tests are small: threads would only wait for each other.
# Three processes run the files of tests, the longest first, since some wait.
# With OMP_NUM_THREADS above 1, threads sleep while they wait.
test: export OMP_NUM_THREADS ?= 1
test: export OMP_WAIT_POLICY ?= PASSIVE
test: $(STAMP)
	@$(BIN) -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

test-cluster: export OMP_NUM_THREADS ?= 1
test-cluster: export FGC_TEST_CLUSTER := 1
test-cluster: $(STAMP)
	@tests/cluster/install.sh
	@$(BIN) -m pytest -q tests/cluster $(ARGS)

# Every command of docs/reproduce.md, at a tiny size.
test-page: export OMP_NUM_THREADS ?= 1
test-page: export FGC_TEST_PAGE := 1
test-page: $(STAMP)
	@$(BIN) -m pytest -q tests/tools/test_reproduce_page.py $(ARGS)

lint: $(STAMP) ruff
	@$(BIN) -m ruff check .
	@$(BIN) -m ruff format --check .
	@$(BIN) -m mypy --version >/dev/null 2>&1 || \
	  $(BIN) -m pip install -q -c requirements/constraints.txt mypy
	@$(BIN) -m mypy

format: $(STAMP) ruff
	@$(BIN) -m ruff check --fix .
	@$(BIN) -m ruff format .

.PHONY: ruff
ruff: $(STAMP)
	@$(BIN) -m ruff --version >/dev/null 2>&1 || \
	  $(BIN) -m pip install -q -c requirements/constraints.txt ruff

# The site is built from the sources' text: no torch, an environment of its
# own. A warning (a dead link, a page without a place in the menu) is an error.
DOCS := .venv-docs/bin/mkdocs
# without the notice about MkDocs 2 on every run
docs docs-serve: export NO_MKDOCS_2_WARNING := 1
docs: $(DOCS)
	@$(DOCS) build --strict --quiet
	@echo 'The site is in site/: open site/index.html.'

docs-serve: $(DOCS)
	@$(DOCS) serve --strict

$(DOCS): setup.cfg requirements/constraints.txt
	@$(PYTHON) -m venv .venv-docs
	@.venv-docs/bin/python -m pip install -q -c requirements/constraints.txt \
	  $$(sed -n '/^docs =/,/^[a-z]/s/^    //p' setup.cfg)
	@touch $@

install: $(STAMP)

$(STAMP): setup.cfg pyproject.toml $(wildcard requirements/*)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' \
	  2>/dev/null || { echo "error: $(PYTHON) is no Python 3.10 to 3.13" \
	  "($$($(PYTHON) --version 2>&1 | head -n 1)): name one, as in" \
	  "\`make PYTHON=python3.11 $(or $(MAKECMDGOALS),help)\`." >&2; exit 2; }
	@$(PYTHON) requirements/install.py

clean:
	rm -rf .venv .venv-docs site build dist *.egg-info
	rm -rf fgc_mm/.mim fgc_mm/runtime/lib .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
