# make test, make lint, make kits, make demo, make docs, make bench, make soak: from a bare Python 3.11 or newer to a result. See CONTRIBUTING.md.
PYTHON ?= python3
# Package index for torch alone; empty: pip's own, or the PyTorch project's CPU builds where only those make sense.
TORCH_INDEX ?=
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
PYTEST_ARGS ?= -n 2

VENV := .venv
KITS := .venv-kits
PIP := $(VENV)/bin/pip --disable-pip-version-check
PINS := pyproject.toml constraints.txt

.PHONY: demo test kits lint docs bench soak clean

demo: $(VENV)/.run
	$(VENV)/bin/audiobat demo

test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest $(PYTEST_ARGS)

kits: $(KITS)/.ready
	OMP_NUM_THREADS=1 $(KITS)/bin/python -m pytest -n 0 tests/kits

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: $(VENV)/.dev
	$(VENV)/bin/python benchmarks/bench.py

soak: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m tests.faults
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m tests.faults.damage --rounds 200
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m tests.faults.soak --minutes 60

docs: $(VENV)/.docs
	$(VENV)/bin/mkdocs build --quiet --strict

clean:
	rm -rf $(VENV) $(KITS) build dist site .pytest_cache .mypy_cache .ruff_cache

# The stamps make a second run quick; changed pins make them anew.
$(VENV)/.docs: $(VENV)/.run
	$(PIP) install -q -c constraints.txt -e '.[docs]'
	@touch $@

# Evaluation kits lie in an environment of their own, which sees the first: 400 MB that no other test needs. Kits that
# ask for torchaudio come without what they ask for, as its wheel loads beside a CUDA build of torch alone.
$(KITS)/.ready: $(VENV)/.dev tests/kits/requirements.txt tests/kits/no_requirements.txt
	$(PYTHON) -m venv $(KITS)
	{ $(VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; pwd; } \
	  > $$($(KITS)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/audiobat.pth
	$(KITS)/bin/pip install -q --disable-pip-version-check -c constraints.txt -r tests/kits/requirements.txt
	$(KITS)/bin/pip install -q --disable-pip-version-check --no-deps -r tests/kits/no_requirements.txt
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(PIP) install -q -c constraints.txt -e '.[dev]'
	@touch $@

$(VENV)/.run: $(VENV)/.torch
	$(PIP) install -q -c constraints.txt -e .
	@touch $@

# torch comes first and pinned. A machine without a GPU is never sent CUDA packages: pip's plan is looked at first.
$(VENV)/.torch: $(PINS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "audiobat needs Python 3.11 or newer: PYTHON=python3.12 make ...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt --upgrade pip
	@index="$(TORCH_INDEX)"; \
	if [ -z "$$index" ] && ! command -v nvidia-smi >/dev/null && \
	  $(PIP) install -q --dry-run --report - -c constraints.txt torch | grep -qiE '"name": "(nvidia|cuda)-'; then \
	  index="$(TORCH_CPU_INDEX)"; echo "No GPU here: torch comes as a CPU build from $$index"; fi; \
	$(PIP) install -q -c constraints.txt $${index:+--index-url "$$index"} torch
	@touch $@
