# make demo: a 20-view CT reconstruction with the shipped weights.  make test: lint, types, docs, tests.  make help: the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq

.PHONY: help demo test docs tutorials release format lock clean

help:
	@echo "make demo    install into $(VENV) and reconstruct a held-out CT slice from 20 views (results/)"
	@echo "make test    lint, types, documentation and tests in the same environment"
	@echo "make docs    build the site into docs/_build/html; a warning is an error"
	@echo "make tutorials  run the tutorials and the gallery (some minutes); make docs then shows their outputs"
	@echo "make release  walk through what a release needs: version, changelog, wheel, demo from it"
	@echo "make format  sort imports and lay out the code"
	@echo "make lock    update requirements.lock to the newest versions that setup.cfg allows"
	@echo "make clean   remove $(VENV) and the caches"
	@echo "PYTHON=...   the interpreter to start from, 3.11 or newer (now: $(PYTHON))"

demo: $(VENV)/installed
	$(BIN)/python sample.py

docs: $(VENV)/docs-installed
	JAX_PLATFORMS=cpu $(BIN)/python -m sphinx -b html -W --keep-going -q docs docs/_build/html

tutorials: $(VENV)/docs-installed
	$(BIN)/python docs/run.py

release: $(VENV)/installed
	$(BIN)/python .ci/release.py $(RELEASE)

test: $(VENV)/installed $(VENV)/docs-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(MAKE) docs PYTHON=$(PYTHON)
	$(BIN)/python -m pytest -n auto --dist loadfile

format: $(VENV)/installed
	$(BIN)/ruff check --fix --select I .
	$(BIN)/ruff format .

# One file for every platform and Python >= 3.11; on 3.11 it holds jax 0.10.1, the last good release there. CPU only.
lock:
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip --disable-pip-version-check -qq install uv
	$(VENV)-lock/bin/uv pip compile setup.cfg --universal --python-version 3.11 --extra dev \
	    --upgrade --no-annotate --quiet --custom-compile-command "make lock" --output-file requirements.lock
	$(VENV)-lock/bin/uv pip compile setup.cfg --universal --python-version 3.11 --extra docs --constraint requirements.lock \
	    --upgrade --no-annotate --quiet --custom-compile-command "make lock" --output-file docs/requirements.lock
	rm -rf $(VENV)-lock

clean:
	rm -rf $(VENV) $(VENV)-lock docs/_build .mypy_cache .ruff_cache .pytest_cache build *.egg-info
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# Stamps: the pinned packages are installed again only when the lock changes, the package itself when its metadata do.
$(VENV)/locked: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	    { echo "error: $(PYTHON) is missing or older than 3.11; name a newer one: make PYTHON=python3.11 ..." >&2; exit 1; }
	@echo "installing pinned packages into $(VENV) (a few minutes, once)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PIP) install --requirement requirements.lock
	@touch $@

$(VENV)/installed: $(VENV)/locked setup.cfg pyproject.toml
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/docs-installed: $(VENV)/installed docs/requirements.lock
	@echo "installing what builds the site into $(VENV)"
	@$(PIP) install --requirement docs/requirements.lock
	@touch $@
