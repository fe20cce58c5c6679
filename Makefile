# make demo   the whole way on a fresh machine: videos, pre-training, fine-tuning, report
# make test   everything CI checks
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo install dev test test-all lint bench clean

demo: install
	$(BIN)/tubelet demo --out demo

install: $(BIN)/.installed

dev: $(BIN)/.installed-dev

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tubelet needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(BIN)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e .
	touch $@

$(BIN)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[dev]'
	touch $@ $(BIN)/.installed

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/pytest -m 'not slow' -n 2 --durations=15

test-all: lint
	$(BIN)/pytest -n 2 --durations=30

bench: dev
	for script in $(filter-out benchmarks/common.py benchmarks/videos.py benchmarks/peer.py benchmarks/dual.py,$(wildcard benchmarks/*.py)); do $(BIN)/python $$script || exit 1; done
	$(BIN)/python benchmarks/step.py --dual

clean:
	rm -rf $(VENV) demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
