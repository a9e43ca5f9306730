# Everything happens in one environment, .venv, made from setup.cfg and the pinned versions of requirements.lock.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# setuptools too, which pip fetches for builds alone: older pips ask the first variable, newer ones the second.
PINNED := PIP_CONSTRAINT=requirements.lock PIP_BUILD_CONSTRAINT=requirements.lock

.PHONY: demo test test-all lint format package clean help

help:            ## what can be made
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

$(READY): setup.cfg pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "natjax needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PINNED) $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: $(READY)   ## train and use a small translator (some minutes on two cores)
	$(BIN)/natjax demo

# Most of their time is compilation, of programs that run for milliseconds.
test: $(READY)   ## the tests that run in some minutes
	JAX_DISABLE_MOST_OPTIMIZATIONS=1 $(BIN)/python -m pytest -m 'not slow' -n auto --dist worksteal

test-all: test   ## all tests: kills, full trainings, large random runs too, one by one
	$(BIN)/python -m pytest -m slow

lint: $(READY)   ## style and mistakes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY) ## mend what lint can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

package: $(READY)  ## build the wheel, install it in a fresh environment, use it from another folder
	VENV=$(VENV) PYTHON=$(PYTHON) bash tests/package.sh

clean:           ## remove what was built
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
