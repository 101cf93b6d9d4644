# make test, make lint, make demo: from a bare Python 3.11 or newer to a result. See CONTRIBUTING.md.
PYTHON ?= python3
# Package index for torch alone; empty: pip's own. CPU builds: https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
PYTEST_ARGS ?= -n 2

VENV := .venv
PIP := $(VENV)/bin/pip --disable-pip-version-check
INDEX := $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
PINS := pyproject.toml constraints.txt

.PHONY: demo test lint clean

demo: $(VENV)/.run
	$(VENV)/bin/audiobat demo

test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache

# The stamps make a second run quick; changed pins make them anew.
$(VENV)/.dev: $(VENV)/.run
	$(PIP) install -q -c constraints.txt -e '.[dev]'
	@touch $@

$(VENV)/.run: $(VENV)/.torch
	$(PIP) install -q -c constraints.txt -e .
	@touch $@

# torch comes first and pinned. Without a GPU, look at the plan before anything large is fetched.
$(VENV)/.torch: $(PINS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "audiobat needs Python 3.11 or newer: PYTHON=python3.12 make ...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt --upgrade pip
	@if ! command -v nvidia-smi >/dev/null && \
	  $(PIP) install -q --dry-run --report - -c constraints.txt $(INDEX) torch | grep -qiE '"name": "(nvidia|cuda)-'; then \
	  echo "This machine has no GPU, but pip would fetch CUDA packages with torch: name an index with CPU builds," >&2; \
	  echo "such as TORCH_INDEX=https://download.pytorch.org/whl/cpu (see CONTRIBUTING.md)." >&2; exit 1; fi
	$(PIP) install -q -c constraints.txt $(INDEX) torch
	@touch $@
