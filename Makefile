# The environment is .venv in this checkout; every target makes what it needs, by pip alone.
PYTHON ?= python3.11
PIP = .venv/bin/pip --disable-pip-version-check --quiet
PIP_INSTALL = $(PIP) install --require-hashes
TRAIN ?=

.PHONY: help install demo test e2e bench load manifests cluster-packages lint clean
help:  ## what this Makefile does
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*##/\t/' | expand -t 18

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.local: requirements/build.txt requirements/local.txt pyproject.toml | .venv/bin/python
	@echo "installing what serving needs (no torch) into .venv ..."
	$(PIP_INSTALL) -r requirements/build.txt
	$(PIP_INSTALL) -r requirements/local.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.train: requirements/train.txt .venv/.local
	@echo "installing what training needs (torch, 4.7 GB) into .venv ..."
	$(PIP_INSTALL) -r requirements/train.txt
	@touch $@

.venv/.dev: requirements/dev.txt .venv/.local
	@echo "installing what the tests need (torch included, 4.7 GB) into .venv ..."
	$(PIP_INSTALL) -r requirements/dev.txt
	@touch $@ .venv/.train

.venv/.loadtest: requirements/loadtest.txt .venv/.local
	@echo "installing what the load test needs (locust) into .venv ..."
	$(PIP_INSTALL) -r requirements/loadtest.txt
	@touch $@

install: .venv/.local  ## make .venv with all that serving needs

demo: .venv/.local $(if $(TRAIN),.venv/.train)  ## the main job, from nothing; TRAIN=1 trains a small release first
	.venv/bin/python -m pneumoserve.local.demo $(if $(TRAIN),--train)

test: .venv/.dev  ## all tests that need no cluster: real TorchServe, real S3, real processes
	.venv/bin/python -m pytest

e2e: .venv/.dev  ## tests on a real Kubernetes with KServe: that of KUBECONFIG, else a node of our own
	@# The first test's set-up builds, from empty caches, Kubernetes and the images.
	.venv/bin/python -m pytest --verbose --capture=no --timeout=2700 tests/chart tests/e2e

bench: .venv/.dev  ## the measurements in benchmarks/, an hour: each writes its result beside its program
	for name in commit outage kills verify replay; do .venv/bin/python -m benchmarks.$$name || exit 1; done

# The load's options by variables: make load RATE=10 SHAPE=ramp P99_MS=800
LOAD = shape=SHAPE rate=RATE seconds=SECONDS kinds=KINDS films=FILMS images=IMAGES timeout=TIMEOUT out=OUT \
  max-failed=MAX_FAILED min-rate=MIN_RATE p50-ms=P50_MS p95-ms=P95_MS p99-ms=P99_MS
given = $(if $($(2)),--$(1) "$($(2))")
load: .venv/.loadtest  ## load the local stack, started for it, and check thresholds; RATE=10 P99_MS=800 … (loadtest/README.md)
	.venv/bin/python -m loadtest.local $(foreach pair,$(LOAD),$(call given,$(firstword $(subst =, ,$(pair))),$(lastword $(subst =, ,$(pair)))))

cluster-packages:  ## Debian packages that a node of our own needs
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$(cat tests/cluster/packages.txt)

manifests: .venv/.dev  ## manifests/ anew from the chart; ARGS="--release ID --namespace N --values FILE": your site's
	.venv/bin/python -m tests.chart.manifests $(ARGS)

lint: .venv/.dev  ## ruff and mypy --strict
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

clean:  ## remove the environment and the local state
	rm -rf .venv state
