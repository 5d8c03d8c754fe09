# Missing parts are installed first. A stamp file marks each completed step, so a second run takes no
# time and needs no network.
PYTHON ?= python3
VENV := .venv
PAGE := aggregator/page/lib/.built
PAGE_LINT := scripts/page-lint
NPM_QUIET := --no-update-notifier --ignore-scripts --no-audit --no-fund --loglevel=error
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --no-input
PYX := $(wildcard ingest/*.pyx ingest/*.pxd)
UV_VERSION := 0.13.9
SEED ?= 1
MINUTES ?= 20
ARGS ?=

.PHONY: help install build dist page screenshots bench-stats up test test-helm mutants lint format docs site bench stress soak soak-cluster lock clean
.DEFAULT_GOAL := help

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' Makefile

install: $(VENV)/.built $(PAGE) $(VENV)/.dev ## install everything: environment, extension, test tools

build: $(VENV)/.built ## compile the extension

page: $(PAGE) ## fetch the libraries of the live page from the npm registry

up: $(VENV)/.built $(PAGE) ## run the whole system in the foreground (ARGS="--port 9000")
	@exec $(PY) -m stack.cli up $(ARGS)

# Tests share nothing: each has its own ports, directories and database. They mostly wait, so four
# run in parallel on two cores; tests/support/order.py starts the long ones first. Unit tests
# (ARGS=tests/unit/test_wire.py) need no browser, load generator or Prometheus. The tests of the Helm
# chart have their own target. PYTHONDONTWRITEBYTECODE is ignored: without bytecode on disk, each of the
# many Python processes that the tests start would compile Clickmill first.
TESTS := $(filter tests/%,$(ARGS))
UNIT_ONLY := $(and $(TESTS),$(if $(filter-out tests/unit%,$(TESTS)),,yes))
test: JOBS ?= 4
test: $(VENV)/.built $(VENV)/.dev $(if $(UNIT_ONLY),,$(PAGE) $(PAGE_LINT)/node_modules/.built $(VENV)/.os-test) ## run all tests against real NATS and Postgres
	@PYTHONDONTWRITEBYTECODE= PATH="$$PATH:/usr/sbin:/sbin" $(PY) -m pytest -n $(JOBS) --ignore tests/helm $(ARGS)

# Separate, because the first build of helm takes about two minutes on two cores.
test-helm: $(VENV)/.built $(VENV)/.dev $(VENV)/.os-test $(VENV)/.helm ## test the Helm chart with a helm built from source
	@PATH="$$PATH:/usr/sbin:/sbin" $(PY) -m pytest tests/helm $(ARGS)

lint: $(VENV)/.built $(VENV)/.dev $(PAGE) $(PAGE_LINT)/node_modules/.built ## run all linters: ruff, mypy, stubtest, shellcheck, tsc, biome, bandit, pip-audit, mkdocs
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(PY) -m mypy tests bench grafana
	@$(PY) -m mypy.stubtest $(patsubst ingest/%.pyx,ingest.%,$(filter %.pyx,$(PYX)))
	@$(VENV)/bin/shellcheck $$(grep -Isl '^#!.*sh$$' scripts/* .ci/*)
	@scripts/npm $(PY) run -s check --prefix $(PAGE_LINT)
	@$(PY) -m bandit -q -c pyproject.toml -r clickmill ingest aggregator stack scripts
	@$(PY) scripts/audit.py requirements.lock requirements-build.lock
	@$(PY) -m mkdocs build --strict

site: $(VENV)/.dev ## build docs/ as a site in build/site
	@$(PY) -m mkdocs build --strict

fuzz: $(VENV)/.built $(VENV)/.dev $(VENV)/.fuzz ## fuzz all parsers of input, guided by coverage (SECONDS=60 ONLY=batch)
	@$(PY) -m tests.fuzz.run $(if $(SECONDS),--seconds $(SECONDS)) $(if $(ONLY),--only $(ONLY)) $(ARGS)

mutants: $(VENV)/.built $(VENV)/.dev $(VENV)/.mutants ## mutation tests (ONLY=fold,outbox SECONDS=900)
	@$(PY) -m tests.mutants.run $(if $(SECONDS),--seconds $(SECONDS)) $(if $(ONLY),--only $(ONLY)) $(ARGS)

format: $(VENV)/.dev $(PAGE_LINT)/node_modules/.built ## format the source code
	@$(PY) -m ruff check --fix-only -q .
	@$(PY) -m ruff format .
	@scripts/npm $(PY) run -s format --prefix $(PAGE_LINT)

docs: $(VENV)/.built $(VENV)/.dev ## generate dashboards, alert rules and tables in docs
	@$(PY) -m grafana.build $(ARGS)
	@$(PY) -m stack.settings_table

bench: $(VENV)/.built $(VENV)/.dev $(VENV)/.bench ## run the benchmarks and update docs/benchmarks.md (ROUNDS=5 SECONDS=6 ONLY=side,tail)
	@PATH="$$PATH:/usr/sbin:/sbin" $(PY) -m bench.run $(if $(ROUNDS),--rounds $(ROUNDS)) \
	  $(if $(SECONDS),--seconds $(SECONDS)) $(if $(ONLY),--only $(ONLY)) $(ARGS)

stress: $(VENV)/.built $(VENV)/.dev ## run the load scenario and check every click (USERS=500 MINUTES=10)
	@$(PY) -m bench.sections.stress $(if $(USERS),--users $(USERS)) \
	  $(if $(filter command line environment,$(origin MINUTES)),--minutes $(MINUTES)) $(ARGS)

screenshots: $(VENV)/.built $(PAGE) $(VENV)/.dev $(VENV)/.os-test ## update the screenshots of the live page in docs/images
	@$(PY) -m bench.report.screenshots $(ARGS)

bench-stats: $(VENV)/.built $(VENV)/.dev ## measure how fast statistics are read (BANNERS=1000 DAYS=400)
	@$(PY) -m bench.sections.statistics.bench $(ARGS)

soak: JOBS ?= 2
soak: $(VENV)/.built $(VENV)/.dev $(VENV)/.os-test ## run the long crash suite (SEED=1 MINUTES=20 JOBS=2 ONLY=nats TIMES=60)
	@$(if $(ONLY),,$(PY) -m pytest -q -m soak --ignore tests/cluster)
	@SEED=$(SEED) MINUTES=$(MINUTES) JOBS=$(JOBS) $(PY) -m tests.crash.soak \
	  $(if $(ONLY),--no-model --only $(ONLY)) $(if $(TIMES),--times $(TIMES)) $(ARGS)

soak-cluster: $(VENV)/.built $(VENV)/.dev $(VENV)/.os-test $(VENV)/.os-cluster ## run the long tests of several machines; needs root (SEED=1 TIMES=5)
	@SEED=$(SEED) TIMES=$(or $(TIMES),5) PATH="$$PATH:/usr/sbin:/sbin" $(PY) -m pytest -m "soak or not soak" -rP tests/cluster $(ARGS)

lock: $(VENV)/.python ## update the lock files from pyproject.toml
	@$(PIP) install -q uv==$(UV_VERSION)
	@for out in "requirements.lock pyproject.toml" \
	  "requirements-build.lock --group pyproject.toml:build" \
	  "requirements-node.lock --group pyproject.toml:node" \
	  "requirements-dev.lock pyproject.toml --extra dev" \
	  "requirements-fuzz.lock pyproject.toml --extra fuzz -c requirements-dev.lock" \
	  "requirements-helm.lock pyproject.toml --extra helm -c requirements-dev.lock" \
	  "requirements-mutants.lock pyproject.toml --extra mutants -c requirements-dev.lock" \
	  "requirements-bench.lock pyproject.toml --extra bench -c requirements-dev.lock"; do \
	  $(VENV)/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes \
	    --no-header --no-emit-index-url --no-annotate -o $$out || exit 1; done

dist: $(VENV)/.build $(PAGE) ## build sdist and wheel in dist/
	@rm -rf dist
	@$(PY) -c 'from setuptools import build_meta; build_meta.build_sdist("dist")' >/dev/null
	@$(PIP) wheel -q --no-deps --no-build-isolation -w dist dist/*.tar.gz
	@ls dist

clean: ## remove everything that was built or installed here, but not data/
	rm -rf $(VENV) $(PAGE_LINT)/node_modules aggregator/page/lib aggregator/page/lib.new aggregator/page/node_modules build dist *.egg-info ingest/*.so ingest/_*.c .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.python:
	@PYTHON=$(PYTHON) scripts/os-packages build
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.runtime: requirements.lock | $(VENV)/.python
	@echo "Installing the dependencies of Clickmill into $(VENV)"
	@$(PIP) install -q --require-hashes -r requirements.lock
	@touch $@

$(VENV)/.build: requirements-build.lock | $(VENV)/.python
	@$(PIP) install -q --require-hashes -r requirements-build.lock
	@touch $@

$(VENV)/.built: $(VENV)/.runtime $(VENV)/.build pyproject.toml setup.py $(PYX)
	@PYTHON=$(PYTHON) scripts/os-packages build
	@echo "Compiling the extension"
	@$(PIP) install -q --no-deps --no-build-isolation -e .
	@touch $@

$(PAGE): aggregator/page/package-lock.json aggregator/page/package.json scripts/page scripts/npm | $(VENV)/.python
	@echo "Installing the libraries of the live page"
	@scripts/page $(PY)

$(PAGE_LINT)/node_modules/.built: $(PAGE_LINT)/package-lock.json $(PAGE_LINT)/package.json | $(VENV)/.python
	@echo "Installing the linters of the page's JavaScript"
	@scripts/npm $(PY) ci --prefix $(PAGE_LINT) $(NPM_QUIET)
	@touch $@

$(VENV)/.dev: requirements-dev.lock | $(VENV)/.runtime
	@echo "Installing the test tools into $(VENV)"
	@$(PIP) install -q --require-hashes -r requirements-dev.lock
	@touch $@

$(VENV)/.fuzz: requirements-fuzz.lock | $(VENV)/.runtime
	@$(PIP) install -q --require-hashes -r requirements-fuzz.lock
	@touch $@

$(VENV)/.helm: requirements-helm.lock scripts/helm | $(VENV)/.runtime
	@echo "Building helm"
	@$(PIP) install -q --require-hashes -r requirements-helm.lock
	@scripts/helm $(VENV)
	@touch $@

$(VENV)/.mutants: requirements-mutants.lock | $(VENV)/.runtime
	@$(PIP) install -q --require-hashes -r requirements-mutants.lock
	@touch $@

# Contenders may be missing: the report says so, and the benchmarks continue without them.
$(VENV)/.bench: requirements-bench.lock scripts/os-packages | $(VENV)/.runtime
	@if $(PIP) install -q --require-hashes -r requirements-bench.lock && scripts/os-packages bench; \
	  then touch $@; fi

$(VENV)/.os-cluster: scripts/os-packages | $(VENV)/.python
	@scripts/os-packages cluster
	@touch $@

$(VENV)/.os-test: scripts/os-packages | $(VENV)/.python
	@scripts/os-packages test
	@touch $@
