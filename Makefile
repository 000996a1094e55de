# Everything runs inside .venv, which is made on first use and remade when the dependencies change.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
export OPENBLAS_NUM_THREADS := 1

.PHONY: demo test test-slow lint install clean

demo: install
	$(BIN)/sparsefield demo

# Two workers of one thread each use two cores better than threads that wait for each other.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2

test-slow: install
	$(BIN)/python -m pytest -q -m slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "sparsefield needs Python 3.11 or newer"'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $(STAMP)

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache
