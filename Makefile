# Everything runs inside .venv, which is made on first use and remade when the dependencies change.
# The variables PYTHON, TORCH_INDEX and CONSTRAINTS of docs/install.md reach .ci/venv.
export PYTHON TORCH_INDEX
export OPENBLAS_NUM_THREADS := 1
BIN := .venv/bin
STAMP := .venv/.installed
# Two workers of one thread each use two cores better than threads that wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2

.PHONY: demo test test-all lint docs install clean

demo: install
	$(BIN)/sparsefield demo

test: lint
	$(PYTEST)

test-all: lint
	$(PYTEST) -m 'not gpu'

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: install
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[docs]'
	$(BIN)/mkdocs build --strict

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt .ci/venv
	.ci/venv
	touch $(STAMP)

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache
