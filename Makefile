# Two commands a user needs: `make demo` and `make test`. Both rest on `make install`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test check format unit coverage docs lines clean

install: .venv/installed

.venv/installed: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit("hemascope needs Python 3.11 or newer, this is %d.%d: run make PYTHON=/path/to/python3.11" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV=.venv $(BIN)/uv pip install -r requirements.lock
	VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --no-deps --editable .
	@touch $@

# The main job, on BloodMNIST where it can be had, else on rendered cells that say so.
demo: install
	$(BIN)/hemascope demo

test: check unit

# A thread for each process, or they wait for each other; one process more than cores, as many tests wait.
# Bytecode is kept, whatever the environment says: else every process compiles torch anew.
unit: install
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest -p no:cacheprovider -n $$(($$(nproc) + 1)) --dist worksteal $(PYTEST)

# The tests with the lines and branches that they reach, which takes a sixth longer; fails below 90 %.
coverage:
	$(MAKE) unit PYTEST="--cov --cov-report=term"

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/deptry src
	$(BIN)/pyright
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec deploy/compose.yaml
	$(BIN)/kubernetes-validate --quiet --strict deploy/kubernetes/*.yaml

# The documentation, into build/docs; warnings are errors. Needs no network.
docs: install
	$(BIN)/sphinx-build -q -E -W --keep-going -n -d build/doctrees docs build/docs

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Lines of code without docstrings, comments and blank lines, for each room of the package.
lines: install
	$(BIN)/python benchmarks/lines.py

clean:
	rm -rf .venv runs build .coverage
