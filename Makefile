PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test docs
demo: .venv/demo
	$(BIN)/limbeck demo --out runs/demo

test: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile
	@echo "lines of src: $$(cat $$(find src -name '*.py') | wc -l)"

docs: .venv/dev  # the site in docs/_build, to be opened from there
	$(BIN)/sphinx-build -W --keep-going -q docs docs/_build

# One environment for both; each installs what it needs, in the versions of constraints.txt.
.venv/demo: pyproject.toml constraints.txt | .venv
	$(BIN)/pip install --constraint constraints.txt --editable '.[digits,report]'
	@touch $@

.venv/dev: pyproject.toml constraints.txt | .venv
	$(BIN)/pip install --constraint constraints.txt --editable '.[dev]'
	@touch $@

.venv:
	$(PYTHON) -m venv .venv
