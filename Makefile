# Everything is one command away, and each works as the first one after a clone: the environment is built from
# constraints.txt in .venv, with uv where present, else with Python's own venv and pip.
#
#   PYTHON=python3.12   the interpreter to use (3.11 or later); the environment is remade for it
#   ENV=.venv           where the environment lives
#   SEED=7, SEEDS=1000  for `make sim`: one seed with its trace, or that many seeds; for `make shrink`: the seed
#   BUDGET=600          for `make sim`: as many seeds as can be run in so many seconds
#   ARGS='-k election'  for `make test`, `make sim`, `make score`, `make bench` and `make demo`: further arguments, such
#                       as --full for the demo or --report FILE for the simulator
#   MINUTES=3, KILLS=200, SECONDS=60, TRACES=1000, COMMANDS=1000000
#                       for `make chaos`, `make failover`, `make fuzz`, `make spec`, `make once`
#   ROUNDS=9 SECONDS=2  for `make bench`: more rounds, and longer ones
#   WORKERS=1           for `make test`: how many tests run at a time (one more than there are cores: some wait)
#   VERSIONS='3.12'     for `make test-all`

ENV ?= .venv
PYTHON ?=
SEEDS ?= 1000
COMMANDS ?= 1000000
MINUTES ?= 3
KILLS ?= 200
SECONDS ?= 60
TRACES ?= 1000
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
VERSIONS ?= 3.11 3.12 3.13 3.14
BIN := $(ENV)/bin

export PIP_CONSTRAINT := $(abspath constraints.txt)
export PIP_BUILD_CONSTRAINT := $(abspath constraints.txt)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export UV_CONSTRAINT := $(abspath constraints.txt)
export UV_BUILD_CONSTRAINT := $(abspath constraints.txt)
export UV_PYTHON_DOWNLOADS := never

# uv, where there is one that knows dependency groups.
UV := $(shell uv pip install --help 2>/dev/null | grep -q -e --group && echo uv)

.PHONY: help setup demo test test-all check fix sim shrink once explore spec mutants score fuzz chaos failover bench
.PHONY: bench-quick suites check-texts check-core
.PHONY: docs clean remake

help:
	@echo "make demo       three nodes agree, lose one, and go on: half a minute, the best place to start"
	@echo "make test       all tests              make test-all   under each Python from 3.11 to 3.14 that is found"
	@echo "make check      format, lint, types, layers, coverage of the core; writes nothing"
	@echo "make fix        what of it can be put right automatically"
	@echo "make sim        1,000 seeds of the simulator; make sim SEED=7 prints the trace of one"
	@echo "make shrink SEED=7    a seed that fails, as a script of a few events that replays"
	@echo "make once       1,000,000 writes with a fifth of the replies lost: did each take effect exactly once?"
	@echo "make explore    every state of small groups of the real core, within bounds"
	@echo "make spec       each step of random walks of the core, explained by an abstract Raft"
	@echo "make mutants    plants faults in the source, and says what catches each"
	@echo "make score      changes the core in every small way, and counts what its tests notice; goes on where it stopped"
	@echo "make fuzz       what comes from the network and from disks, mutated"
	@echo "make chaos      five real processes: partitions, kills, pauses; is what clients saw linearizable?"
	@echo "make failover   how long writes pause when the leader is killed"
	@echo "make bench      writes and reads per second on this machine, beside etcd's, in half an hour   make bench-quick   in 3"
	@echo "make suites     writes docs/reference/suites.md: which test covers which name of the field's suites"
	@echo "make docs       the documentation as a site in site/"
	@echo "make setup      the whole environment in $(ENV)     make clean   removes all that was made"

demo: $(ENV)/.installed-run
	@$(BIN)/quorate demo $(ARGS)

test: $(ENV)/.installed-test
	$(BIN)/python -m pytest --numprocesses $(WORKERS) $(ARGS)

check-texts check-core: export PYTHONDONTWRITEBYTECODE := 1
check-texts check-core: export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
# pyright looks at the packages of the python that PATH names first.
check-texts check-core: export PATH := $(abspath $(BIN)):$(PATH)
check check-texts check-core: $(ENV)/.installed-check
check:
	@$(MAKE) --no-print-directory --jobs=2 $(if $(filter output-sync,$(.FEATURES)),--output-sync) check-texts check-core

check-texts:
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/pyright --ignoreexternal --verifytypes quorate
	$(BIN)/lint-imports --cache-dir $(ENV)/cache/import-linter
	$(BIN)/python -m pytest -q tests/test_tidy.py tests/test_exports.py tests/api/test_typing.py

check-core:
	$(BIN)/python -m coverage run -m pytest -q tests/core tests/paper tests/scenarios
	$(BIN)/python -m coverage report

fix: $(ENV)/.installed-check
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

sim: $(ENV)/.installed-run
	@$(BIN)/python -m quorate.testing sim $(if $(SEED),--seed $(SEED),$(if $(BUDGET),--budget $(BUDGET),--seeds $(SEEDS))) $(ARGS)

shrink: $(ENV)/.installed-run
	@$(BIN)/python -m quorate.testing shrink --seed $(or $(SEED),$(error name the seed that fails: make shrink SEED=7)) $(ARGS)

once: $(ENV)/.installed-run
	@$(BIN)/python -m quorate.testing once $(if $(SEED),--seed $(SEED),--commands $(COMMANDS)) $(ARGS)

explore: $(ENV)/.installed-run
	@$(BIN)/python -m quorate.testing explore $(ARGS)

spec: $(ENV)/.installed-run
	@$(BIN)/python -m quorate.testing specification --traces $(TRACES) --steps 500 $(ARGS)

mutants: $(ENV)/.installed-test
	@$(BIN)/python -m tests.mutants $(ARGS)

score: $(ENV)/.installed-score
	@$(BIN)/python -m tests.score $(ARGS)

fuzz: $(ENV)/.installed-fuzz
	@$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(ARGS)

chaos: $(ENV)/.installed-run
	@$(BIN)/python -m quorate.testing chaos run --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(ARGS)

failover: $(ENV)/.installed-run
	@$(BIN)/python -m quorate.testing chaos failover --kills $(KILLS) $(ARGS)

bench: $(ENV)/.installed-bench
	@$(BIN)/python -m benchmarks $(or $(ARGS),all $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(filter command line,$(origin SECONDS)),--seconds $(SECONDS)))

bench-quick: $(ENV)/.installed-bench
	@$(BIN)/python -m benchmarks --out build/benchmarks quick

suites: $(ENV)/.installed-test
	@$(BIN)/python -m tests.suites.page

docs: $(ENV)/.installed-docs
	$(BIN)/zensical build --clean --strict

setup: $(ENV)/.installed-run $(ENV)/.installed-check $(ENV)/.installed-docs

# Each interpreter that is found gets an environment of its own; shims of pyenv that lead nowhere do not count.
test-all:
	@set -e; for version in $(VERSIONS); do \
	  found=; \
	  for python in python$$version "$$HOME"/.pyenv/versions/$$version*/bin/python; do \
	    test -n "$$found" || ! $(call is_python,$$python) || found=$$python; \
	  done; \
	  if test -z "$$found"; then echo "Python $$version: not found, not tested"; continue; fi; \
	  echo "Python $$version: $$found"; \
	  $(MAKE) --no-print-directory test ENV=.venv-$$version PYTHON="$$found"; \
	done

clean:
	rm -rf .venv .venv-3.* .cache build dist site
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- environments -----------------------------------------------------------------------------------------------------
# $(ENV)/.made names the interpreter that was asked for. The environment is made anew when another one is, when the pins
# change, and when uv made it and is gone. $(ENV)/.installed-X says that what X needs is there, as pyproject.toml has it.

is_python = $(1) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null

outdated := $(filter-out $(shell cat $(ENV)/.made 2>/dev/null),$(PYTHON))$(if $(UV)$(wildcard $(BIN)/pip),,no pip)

$(ENV)/.made: constraints.txt $(if $(outdated),remake)
	@set -e; found=; old=; \
	for python in $(or $(PYTHON),python3.14 python3.13 python3.12 python3.11 python3 python); do \
	  if ! $(call is_python,$$python); then continue; fi; \
	  if test -n "$(UV)" || $$python -c 'import ensurepip, venv' 2>/dev/null; then found=$$python; break; fi; \
	  old=$$python; \
	done; \
	if test -z "$$found" && test -n "$$old"; then \
	  echo "$$old has no venv or ensurepip: install them (Debian, Ubuntu: apt install python3-venv), or install uv."; exit 1; \
	elif test -z "$$found"; then \
	  echo "quorate needs Python 3.11 or later, and $(or $(PYTHON),python3) is none: install one, or name it: make PYTHON=/path/to/python"; exit 1; \
	fi; \
	echo "making $(ENV) with $$found$(if $(UV), and uv)"; \
	rm -rf $(ENV); \
	if test -n "$(UV)"; then $(UV) venv -q --python "$$($$found -c 'import sys; print(sys.executable)')" $(ENV); \
	else $$found -m venv $(ENV); $(BIN)/python -m pip install -q --upgrade pip; fi; \
	echo "$(PYTHON)" > $@

INSTALL = $(if $(UV),$(UV) pip install -q --python $(BIN)/python,$(BIN)/python -m pip install -q)

$(ENV)/.installed-run: $(ENV)/.made pyproject.toml
	@$(INSTALL) -e '.[all]'
	@touch $@

$(ENV)/.installed-%: $(ENV)/.installed-run
	@$(INSTALL) --group $*
	@touch $@
