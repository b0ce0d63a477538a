# `make demo` and `make test` do everything on a fresh machine with Python 3.11 and make.
PYTHON ?= python3.11
VENV := .venv
RUN := $(VENV)/bin
# Waiting threads sleep instead of spinning: on a busy machine that is 10 to 50 times faster.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: demo test lint docs notebooks check-notebooks viewer clean
.DEFAULT_GOAL := demo

# What the demo needs, and what developers need on top; each is installed once.
$(VENV)/core: pyproject.toml constraints.txt
	@echo "1/2 torch, some 200 MB, into $(VENV)"
	$(PYTHON) -m venv $(VENV)
	$(RUN)/pip install --quiet --constraint constraints.txt torch==2.13.0
	@echo "2/2 SynBrain and what it needs; a minute or two"
	$(RUN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/installed: $(VENV)/core
	@echo "tools for tests and docs"
	$(RUN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/core
	$(RUN)/synbrain demo --out demo-out --overwrite

test: $(VENV)/installed
	$(RUN)/python -m pytest -n auto --dist loadfile

lint: $(VENV)/installed
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/lint-imports

# The site, with every example run; a warning or a broken link between pages is an error.
docs: $(VENV)/installed
	$(RUN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

# Three examples as notebooks, run and kept with their output.
notebooks: $(VENV)/installed
	$(RUN)/python examples/execute.py

check-notebooks: $(VENV)/installed
	$(RUN)/python examples/execute.py --check

# for developers, with npm: bundles viewer/web/src into src/synbrain/viewer/static, which is committed
viewer:
	cd viewer/web && npm ci --no-audit --no-fund && node build.mjs

clean:
	rm -rf $(VENV) demo-out docs/_build docs/examples examples/data
