# Two commands: `make demo` shows what this is, `make test` shows that it works.
# Both make .venv with pinned dependencies first; nothing but Python 3.11 to 3.14 and pip is needed.

PYTHON ?= python3
BIN := .venv/bin
DEMO := runs/demo
WORLD := $(DEMO)/world
SWEEPS := $(patsubst %,sweeps/tiny/%.yaml,ladder seeds seq_len depth width)

.PHONY: demo test lint clean

demo: .venv/installed
	$(BIN)/ligr world --out $(WORLD)/log --members 3000 --seed 0
	$(BIN)/ligr prepare $(WORLD)/log --out $(WORLD)/prepared
	$(BIN)/ligr sweep $(SWEEPS) --data $(WORLD)/prepared --out $(DEMO) --together 3
	$(BIN)/ligr report $(DEMO)

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder  # compiling keeps one core busy

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv runs/demo
