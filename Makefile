# Makes .venv and installs what a target needs, then runs it. `make` alone lists the targets.
# Without make (Windows): CONTRIBUTING.md has the two pip lines.

PYTHON ?= python3
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
TRAIN := $(VENV)/.installed-train
DEV := $(VENV)/.installed-dev
EXAMPLES := $(VENV)/.installed-examples
EXTRAS := $(VENV)/.installed-extras
RELEASE := $(VENV)/.installed-release
# one file for all systems; the same versions as constraints.txt, and no address of an index
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" -c constraints.txt
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' src/hymunet/__init__.py)
USER_EXTRAS := download train volumes dicom gpu export serve cluster hub bundle
# a process a core, each with one thread; a module's tests share what they have trained
PARALLEL := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadscope

.DEFAULT_GOAL := help
.NOTPARALLEL:  # two pips in one environment would break it
.DELETE_ON_ERROR:
.PHONY: help demo examples test test-extras test-all lint bench lock build audit clean

help: ## list the targets
	@echo "HyM-UNet: make TARGET [PYTHON=python3.12] [ARGS=\"more options\"]"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(TRAIN) ## train, predict and evaluate on drawn lesions; no data to download
	$(BIN)/hymunet demo $(ARGS)

# ARGS that all take: --full, and --output FOLDER
examples: $(EXAMPLES) ## the experiments of examples/, a minute each; results in runs/examples
	$(BIN)/python examples/local_or_global.py $(ARGS)
	$(BIN)/python examples/skip_on_noise.py $(ARGS)
	$(BIN)/python examples/cost_by_depth.py $(ARGS)
	$(BIN)/python examples/every_claim.py $(ARGS)
	$(BIN)/python examples/with_torch.py $(ARGS)
	$(BIN)/python examples/with_lightning.py $(ARGS)
	$(BIN)/python examples/with_monai.py $(ARGS)

test: $(DEV) ## the tests but the slow ones, with coverage (at least 90 %)
	$(PARALLEL) -m "not slow" --cov --cov-fail-under=90 $(ARGS)

test-extras: $(EXTRAS) ## the tests of the optional parts: Triton (interpreted), ONNX, Ray, the page
	$(PARALLEL) -m "(triton or onnx or browser or notebook or cluster) and not slow" $(ARGS)

test-all: $(EXTRAS) ## every test, slow ones and those on real images included
	$(BIN)/python -m pytest --cov --cov-fail-under=90 $(ARGS)

lint: $(DEV) ## style, formatting, types and the layers' import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# ARGS that both take: --repeats, --threads and --json FOLDER, which gets a file of each
bench: $(DEV) ## time the scan and the presets against rivals, after checking that they agree
	$(BIN)/python -m benchmarks.scan $(ARGS)
	$(BIN)/python -m benchmarks.network --linear-cost $(ARGS)

# of the pins in constraints.txt, for every system and Python; needs the package index
lock: $(RELEASE) ## write requirements/*.txt anew: the release install and its tools, with hashes
	$(LOCK) pyproject.toml --output-file requirements/core.txt
	$(LOCK) pyproject.toml $(addprefix --extra ,$(USER_EXTRAS)) --output-file requirements/all.txt
	$(LOCK) requirements/tools.in --output-file requirements/tools.txt

build: $(RELEASE) ## wheel, sdist and list of components (SBOM) in dist/, checked
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl
	@mkdir -p build  # cyclonedx-py asks pyproject.toml for the version, which stands in the source
	sed 's/^dynamic = .*/version = "$(VERSION)"/' pyproject.toml > build/pyproject.toml
	$(BIN)/cyclonedx-py requirements requirements/all.txt --pyproject build/pyproject.toml \
	  --mc-type library --output-reproducible --output-file dist/hymunet-$(VERSION).cdx.json
	$(BIN)/python -m pytest -m dist tests/test_distribution.py -q

audit: $(RELEASE) ## known vulnerabilities of the release install; needs an advisory database
	$(BIN)/pip-audit --require-hashes --disable-pip -r requirements/all.txt
	$(BIN)/pip-audit --require-hashes --disable-pip -r requirements/tools.txt

clean: ## remove caches and build products; keeps .venv and runs/
	rm -rf build dist htmlcov .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	rm -f .coverage .coverage.*
	find src tests benchmarks examples -type d -name __pycache__ -prune -exec rm -rf {} +

# pyvenv.cfg is written by `python -m venv`; a half-made environment is removed again
$(VENV)/pyvenv.cfg:
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
	  echo "error: '$(PYTHON)' was not found; install Python 3.11 or newer," \
	       "or name yours: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: HyM-UNet needs Python 3.11 or newer, '$(PYTHON)' is $$($(PYTHON) --version 2>&1);" \
	       "name a newer one: make PYTHON=python3.12" >&2; exit 1; }
	@echo "Making a Python environment in $(VENV) ($$($(PYTHON) --version))"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "error: '$(PYTHON) -m venv' failed; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

define announce
	@echo "Installing $(1) and what it needs, torch included, into $(VENV);"
	@echo "the first time takes some minutes (on Linux without an NVIDIA GPU, CONTRIBUTING.md"
	@echo "names the much smaller CPU build of torch)"
endef

$(TRAIN): $(VENV)/pyvenv.cfg pyproject.toml constraints.txt
	$(call announce,hymunet[train])
	@$(PIP_INSTALL) -e ".[train]"
	@touch $@

$(EXAMPLES): $(VENV)/pyvenv.cfg pyproject.toml constraints.txt
	$(call announce,hymunet[train,bundle])
	@$(PIP_INSTALL) -e ".[train,bundle]"
	@touch $(TRAIN) $@

# the dev set holds the train set and the examples', so their stamps are renewed
$(DEV): $(VENV)/pyvenv.cfg pyproject.toml constraints.txt
	$(call announce,hymunet[dev])
	@$(PIP_INSTALL) -e ".[dev]"
	@touch $(TRAIN) $(EXAMPLES) $@

$(EXTRAS): $(VENV)/pyvenv.cfg pyproject.toml constraints.txt
	$(call announce,hymunet[dev-all])
	@$(PIP_INSTALL) -e ".[dev-all]"
	@touch $(TRAIN) $(EXAMPLES) $(DEV) $@

$(RELEASE): $(DEV) requirements/tools.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/tools.txt
	@touch $@
