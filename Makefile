# Two commands are all a newcomer needs: `make demo` and `make test`. Both install what is missing, once.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
PORT ?=
ARGS ?=
VENV := .venv
PY := $(VENV)/bin/python

# Slow tests that every continuous-integration run includes; the rest of them run with `make test-all`.
CI_SLOW := $(wildcard tests/test_wheel.py tests/training/test_resume.py)

# The stamps carry what they depend on in their names: place, Python, requirements. A moved checkout, a newer
# Python or an edited requirement installs again; anything else does not even start pip.
KEY = { pwd; $(PY) -V; cat pyproject.toml constraints.txt; } 2>/dev/null | cksum | cut -d' ' -f1
PIP = $(PY) -m pip install --disable-pip-version-check -c constraints.txt
RETRY = { echo "The installation did not finish; the same command continues it." >&2; exit 1; }

.PHONY: help demo test test-all ci-slow lint docs-figures install install-dev chromium clean

help:  ## list the commands
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 20
	echo "Variables: PORT=8600 (demo), PYTHON=python3.12 (a new .venv), ARGS='-k traverse -x' (tests)"

demo: install  ## install if needed, then open the explorer on the runs that ship with the package
	@exec $(VENV)/bin/latentlab explore $(if $(PORT),--port $(PORT))

test: install-dev chromium  ## install the development tools if needed, then run the suite without its slow tests
	@failed=0
	$(PY) -m pytest -n 2 --dist worksteal -m "not slow and not gpu and not browser" $(ARGS) || { code=$$?; [ $$code = 5 ] || failed=$$code; }
	# A browser measures how fast pages answer, so it has the machine to itself. 5: no test was asked for.
	$(PY) -m pytest -m "browser and not slow and not gpu" $(ARGS) || { code=$$?; [ $$code = 5 ] || failed=$$code; }
	exit $$failed

test-all: install-dev chromium  ## the whole suite, slow tests too
	@exec $(PY) -m pytest $(ARGS)

ci-slow: install-dev  ## the slow tests that continuous integration runs
	@exec $(PY) -m pytest -m slow $(CI_SLOW) $(ARGS)

lint: install-dev  ## check style, format and types
	@$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(PY) -m pyright

docs-figures: install-dev chromium  ## draw the README's figures anew from the shipped runs
	@exec $(PY) docs/figures.py

install:  ## make .venv and install the package into it
	@if [ -e "$(VENV)/.installed-$$($(KEY))" ]; then exit 0; fi
	if ! $(PY) -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
	  if ! command -v $(PYTHON) >/dev/null; then
	    echo "latentlab needs Python 3.11 or newer, and there is no '$(PYTHON)' here: install it, or name another as in 'make demo PYTHON=python3.12'." >&2
	    exit 1
	  elif ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
	    echo "latentlab needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) -V 2>&1): name a newer one as in 'make demo PYTHON=python3.12'." >&2
	    exit 1
	  elif ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then
	    echo "$$($(PYTHON) -V) has no venv module here: install it (on Debian and Ubuntu: apt-get install python3-venv) and repeat the command." >&2
	    exit 1
	  fi
	  echo "Making $(VENV) with $$($(PYTHON) -V)."
	  $(PYTHON) -m venv --clear $(VENV)
	fi
	echo "Installing latentlab and its requirements into $(VENV): some minutes, once (PyTorch is large)."
	$(PY) -m pip install --disable-pip-version-check --quiet --upgrade 'pip>=25.1' || $(RETRY)
	$(PIP) -e . || $(RETRY)
	rm -f $(VENV)/.installed-*
	touch "$(VENV)/.installed-$$($(KEY))"

install-dev: install  ## add the development tools
	@if [ -e "$(VENV)/.installed-dev-$$($(KEY))" ]; then exit 0; fi
	echo "Installing the development tools into $(VENV)."
	$(PIP) --group dev || $(RETRY)
	touch "$(VENV)/.installed-dev-$$($(KEY))"

# Browser tests are part of the suite wherever a Chromium is to be had; elsewhere the suite says that it skips them.
chromium: install
	@if $(PY) -c 'from latentlab.doctor import find_chromium as find; raise SystemExit(find() is None)'; then exit 0; fi
	root=none
	if [ "$$(id -u)" = 0 ]; then root=; elif sudo -n true 2>/dev/null; then root="sudo -n"; fi
	if [ "$$root" != none ] && command -v apt-get >/dev/null; then
	  echo "Installing Chromium for the browser tests."
	  export DEBIAN_FRONTEND=noninteractive
	  if $$root apt-get update -q && $$root apt-get install -qy --no-install-recommends chromium fonts-liberation; then exit 0; fi
	fi
	echo "No Chromium could be installed, so the browser tests will be skipped (set LATENTLAB_CHROMIUM to use your own)." >&2

clean:  ## remove .venv and the caches
	@rm -rf $(VENV) .bench-venv build dist .pytest_cache .ruff_cache
