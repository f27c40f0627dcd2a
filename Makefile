# `make demo` shows what this project is, `make real` shows it on a real feed, and `make test` shows
# that it works. All create .venv with pinned dependencies first; they need nothing but Python 3.11
# to 3.14 and pip.

PYTHON ?= python3
BIN := .venv/bin
DEMO := runs/demo
WORLD := $(DEMO)/world
SWEEPS := $(patsubst %,sweeps/tiny/%.yaml,ladder seeds seq_len depth width)

# A fast file of each package, for `make quick`.
QUICK := $(addprefix tests/,test_config.py test_exports.py test_layers.py ops/test_losses.py \
	policy/test_propensity.py data/test_packing.py tables/test_sparse.py nn/test_cross.py \
	cost/test_flops.py parallel/test_traffic.py runs/test_table.py train/test_random_effect.py \
	sid/test_features.py scaling/test_fit_noise.py commands/test_cli.py)

.PHONY: demo real test quick lint docs results clean

demo: .venv/installed
	$(BIN)/ligr world --out $(WORLD)/log --members 3000 --seed 0
	$(BIN)/ligr prepare $(WORLD)/log --out $(WORLD)/prepared
	@echo "$(DEMO)/report.html shows the runs as they finish"
	@$(BIN)/ligr report $(DEMO) --watch --bootstrap 200 >$(DEMO)/watch.log 2>&1 & watch=$$!; \
	trap 'kill $$watch' INT TERM; \
	$(BIN)/ligr sweep $(SWEEPS) --data $(WORLD)/prepared --out $(DEMO) --together 3; status=$$?; \
	kill $$watch 2>/dev/null; wait $$watch; exit $$status
	$(BIN)/ligr report $(DEMO)

# KuaiRand-Pure or a slice of it; `ligr download kuairand-pure --out runs/kuairand-pure` fetches it.
KUAIRAND ?= $(firstword $(wildcard ../shared/data/kuairand_pure runs/kuairand-pure))

real: .venv/installed
	@test -n "$(KUAIRAND)" || { echo "no KuaiRand-Pure here: fetch it with" \
	"\`$(BIN)/ligr download kuairand-pure --out runs/kuairand-pure\`, or set KUAIRAND=DIR"; exit 1; }
	$(BIN)/python experiments/kuairand_law.py --quick --data $(KUAIRAND) --out runs/real
	$(BIN)/ligr report runs/real/runs

test: .venv/installed
	@$(MAKE) --no-print-directory --jobs 2 --output-sync lint docs
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder  # compiling keeps one core busy

quick: lint  # no run longer than a few seconds; `make test` is the whole suite
	$(BIN)/python -m pytest -n 2 -m 'not slow' $(QUICK)

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/installed  # a warning fails the build; the site is in runs/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

results: .venv/installed  # the tables in docs/ from experiments/results/*.json
	cd experiments && ../$(BIN)/python -m lib.docs

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv runs/demo runs/site
