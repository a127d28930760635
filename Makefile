# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
WORKERS ?= auto
# Thousands of Python processes in one gate: each would compile the package anew, and pytest every assert.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test nightly ready images check durations mutants defects beds lint format bench system-packages clean

demo: $(VENV)/.demo ## the main job on a real model, with this host as the device
	$(BIN)/edgequant demo

test: ready ## the gate: what CI runs, on a new machine too
	$(BIN)/python -m pytest -n $(WORKERS) -m "not nightly" $(PYTEST_ARGS)

nightly: ready $(VENV)/.nightly ## the gate, and what is too long for it
	$(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

# The pack and the disk images are made beside the linting, which has one core busy; what cannot be made a test tells.
ready: system-packages $(VENV)/.dev
	$(MAKE) --jobs=2 --output-sync lint images

images: $(VENV)/.dev
	-$(BIN)/python -m tests.beds --no-boot
	$(BIN)/python -m pytest -q -n 0 --collect-only >/dev/null # compiles the tests, once for all workers

check: $(VENV)/.dev ## the fast subset, for while you work
	$(BIN)/ruff check . && $(BIN)/python -m pytest -n $(WORKERS) -q -m "not nightly and not slow and not ssh and not adb and not arm64" $(PYTEST_ARGS)

durations: system-packages $(VENV)/.dev ## how long each test takes, kept for their order; on a machine that does nothing else
	$(BIN)/python -m pytest -n $(WORKERS) --record-durations $(PYTEST_ARGS)

mutants: $(VENV)/.nightly ## mutation testing of compare/ and judge/: hours; SAMPLE=40 asks one mutant in 40, MUTANTS="edgequant.compare.summary*" a part
ifdef SAMPLE
	$(BIN)/python -m tests.mutants --sample $(SAMPLE)
else
	$(BIN)/mutmut run $(MUTANTS)
	$(BIN)/python -m tests.mutants
endif

defects: system-packages $(VENV)/.dev ## planted defects: share missed, and false alarms of healthy twins; DEFECTS="--kind session" for a part
	$(BIN)/python -m tests.defects $(DEFECTS)

beds: system-packages $(VENV)/.dev ## the virtual phone and board and the pack, made ahead of the tests and booted once
	$(BIN)/python -m tests.beds

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.dev
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

bench: system-packages $(VENV)/.dev ## ratios against peers, docs/benchmarks.md says which
	$(BIN)/python -m bench $(BENCH_ARGS)

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "edgequant needs Python 3.10 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV) || { echo "No venv module: on Debian and Ubuntu, apt-get install python3-venv" >&2; exit 1; }

# constraints.txt pins what the last green run was made with.
$(VENV)/.demo: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) install -c constraints.txt -e '.[demo]'
	touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) install -c constraints.txt -e '.[dev]'
	touch $@ $(VENV)/.demo

$(VENV)/.nightly: $(VENV)/.dev
	$(PIP) install -c constraints.txt -e '.[nightly]'
	touch $@

# Only what is missing, and only where apt is: elsewhere the beds say what they need.
system-packages:
	@missing=""; for package in $$(cat tests/apt-packages.txt); do \
	  dpkg -s $$package >/dev/null 2>&1 || missing="$$missing $$package"; done; \
	if [ -n "$$missing" ]; then \
	  command -v apt-get >/dev/null || { echo "Install these yourself, there is no apt-get here:$$missing" >&2; exit 1; }; \
	  sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	  echo "Installing$$missing"; \
	  $$sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache mutants
