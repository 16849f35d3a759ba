# Every target sets up what it needs: `make test` on a bare machine is enough.
PYTHON ?= python3
UV ?= uv
# Tests run in this many processes, each kept to one computing thread.
TEST_JOBS ?= 2
DEMO_DIR ?= runs/demo

BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint format bench lock clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18

setup: .venv/installed  ## create .venv from requirements.lock

# Two stamps: a change of pyproject.toml alone downloads nothing again. --clear
# makes what a lock gives independent of what was there before.
.venv/locked: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python >= 3.11 is needed; '$(PYTHON)' is" \
	    "`$(PYTHON) --version 2>/dev/null || echo missing`. Name another:" \
	    "make setup PYTHON=python3.12" >&2; exit 1; }
	@echo 'Setting up .venv (once; a minute or two)'
	@$(PYTHON) -m venv --clear .venv || { \
	  echo "make setup: '$(PYTHON) -m venv' failed; on Debian and Ubuntu" \
	    "install the package python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install -qq --disable-pip-version-check \
	  --require-hashes --only-binary :all: -r requirements.lock || { \
	  echo "make setup: the pinned packages could not be installed (see" \
	    "above); is a package index reachable? Run make setup again." >&2; \
	  exit 1; }
	@touch $@

.venv/installed: .venv/locked pyproject.toml
	@$(BIN)/python -m pip install -qq --disable-pip-version-check \
	  --no-deps --no-build-isolation --no-index -e .
	@touch $@

demo: setup  ## train on real text: WSD-S, WSD with branches and cosine
	$(BIN)/python -m experiments.wen2024_wsds --workdir=$(DEMO_DIR)

# Two workers that each use all cores slow one another down.
test: export XLA_FLAGS ?= --xla_cpu_multi_thread_eigen=false
test: export OPENBLAS_NUM_THREADS ?= 1
test: setup  ## run every test not marked slow
	$(BIN)/python -m pytest -q -m 'not slow' -n $(TEST_JOBS)

test-all: export XLA_FLAGS ?= --xla_cpu_multi_thread_eigen=false
test-all: export OPENBLAS_NUM_THREADS ?= 1
test-all: setup  ## run every test
	$(BIN)/python -m pytest -q -n $(TEST_JOBS)

lint: setup  ## check style, types and layering
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layering.py

format: setup  ## rewrite the sources in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup  ## run the benchmarks that need no accelerator
	$(BIN)/python -m benchmarks.step_overhead
	$(BIN)/python -m benchmarks.schedule_cost
	$(BIN)/python -m benchmarks.law_overhead
	$(BIN)/python -m benchmarks.design_cost
	$(BIN)/python -m benchmarks.batch_cost

lock:  ## pin the newest versions pyproject.toml allows (needs uv)
	$(UV) pip compile pyproject.toml --quiet --upgrade --universal \
	  --python-version 3.11 --fork-strategy fewest --generate-hashes \
	  --extra train --extra plot --extra text --extra test --group build \
	  --custom-compile-command 'make lock' --output-file requirements.lock

clean:  ## remove .venv and caches, never a run
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache build *.egg-info
