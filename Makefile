# The environment is .venv in this checkout; every target makes what it needs by uv, which pip brings.
PYTHON ?= python3.11
# As pip does: a decode worker writes no bytecode, and compiling would take its time and memory at every start.
INSTALL = sh requirements/uv.sh pip install --quiet --compile-bytecode --python .venv/bin/python
TRAIN ?=

.PHONY: help install demo check types hooks test e2e bench load fuzz docs generate lock manifests chart cluster-packages lint clean
help:  ## what this Makefile does
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*##/\t/' | expand -t 18

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.local: requirements/build.txt requirements/local.txt pyproject.toml | .venv/bin/python
	@echo "installing what serving needs (no torch) into .venv ..."
	$(INSTALL) --require-hashes -r requirements/build.txt
	$(INSTALL) --require-hashes -r requirements/local.txt
	$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.train: requirements/train.txt .venv/.local
	@echo "installing what training needs (torch, 4.7 GB) into .venv ..."
	$(INSTALL) --require-hashes -r requirements/train.txt
	@touch $@

.venv/.dev: requirements/dev.txt .venv/.local
	@echo "installing what the tests need (torch included, 4.7 GB) into .venv ..."
	$(INSTALL) --require-hashes -r requirements/dev.txt
	@touch $@ .venv/.train .venv/.check

.venv/.check: requirements/check.txt .venv/.local
	@echo "installing what \`make check\` needs (no torch) into .venv ..."
	$(INSTALL) --require-hashes -r requirements/check.txt
	@touch $@

.venv/.loadtest: requirements/loadtest.txt .venv/.local
	@echo "installing what the load test needs (locust) into .venv ..."
	$(INSTALL) --require-hashes -r requirements/loadtest.txt
	@touch $@

.venv/.docs: requirements/docs.txt | .venv/bin/python
	@echo "installing what the site of the documents needs into .venv ..."
	$(INSTALL) --require-hashes -r requirements/docs.txt
	@touch $@

install: .venv/.local  ## make .venv with all that serving needs

demo: .venv/.local $(if $(TRAIN),.venv/.train)  ## the main job, from nothing; TRAIN=1 trains a release first, DICOM=1 speaks DICOM too, KEEP=1 leaves all running
	.venv/bin/python -m pneumoserve.local.demo $(if $(TRAIN),--train) $(if $(DICOM),--dicom) $(if $(KEEP),--keep)

# One more than there are cores: most tests wait for servers half of their time.
TESTS_AT_ONCE ?= $(shell expr $$(nproc) + 1)
# TorchServe's sockets lie below a test's folder, and their paths may not exceed 107 bytes. A failed run's folder stays.
pytest_parallel = folder=$$(mktemp -d) && \
  .venv/bin/python -m pytest --numprocesses=$(TESTS_AT_ONCE) --dist=worksteal --basetemp=$$folder $(1) && rm -rf $$folder

check: .venv/.check  ## the first answer, in two minutes: ruff, mypy, layers, generated files in step, tests/unit; no torch, no servers
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	@$(MAKE) --no-print-directory types
	.venv/bin/lint-imports --no-cache
	.venv/bin/python -m tools.generate --check --quick
	$(call pytest_parallel,-m "not slow and not train and not helm" tests/unit tests/chart/test_values.py)

# Without torch, much of what training and the load test import is of type Any: `make lint` has them too.
types: .venv/.check
	.venv/bin/mypy --allow-subclassing-any --allow-untyped-decorators --no-warn-return-any --no-warn-unused-ignores

hooks: .venv/.check  ## let git run ruff and mypy before each commit, and look at its subject
	.venv/bin/pre-commit install

test: .venv/.dev  ## all tests that need no cluster: real TorchServe, real S3, real processes
	$(call pytest_parallel,--durations=20)

# Modules of end-to-end tests side by side; each calls pods of its own at some ten calls a second.
E2E_AT_ONCE ?= 2
e2e: .venv/.dev  ## tests on a real Kubernetes with KServe: that of KUBECONFIG, else a node of our own
	@# From empty caches, the first tests' set-up builds helm, that of the others Kubernetes and the images.
	$(call pytest_parallel,--timeout=2700 tests/chart)
	@# The last test takes the node down, whatever became of the others.
	folder=$$(mktemp -d); status=0; \
	.venv/bin/python -m pytest --numprocesses=$(E2E_AT_ONCE) --dist=loadfile --basetemp=$$folder --verbose -rP \
	  --timeout=2700 --durations=60 -m "not last" tests/e2e || status=$$?; \
	.venv/bin/python -m pytest --timeout=2700 -m last tests/e2e || status=$$?; \
	[ $$status != 0 ] || rm -rf $$folder; exit $$status

bench: .venv/.dev  ## the measurements in benchmarks/, an hour: each writes its result beside its program
	for name in cpu commit outage kills alerts verify replay intake intake_kills; do .venv/bin/python -m benchmarks.$$name || exit 1; done

# The load's options by variables: make load RATE=10 SHAPE=ramp P99_MS=800
LOAD = shape=SHAPE rate=RATE seconds=SECONDS kinds=KINDS films=FILMS images=IMAGES timeout=TIMEOUT out=OUT \
  max-failed=MAX_FAILED min-rate=MIN_RATE p50-ms=P50_MS p95-ms=P95_MS p99-ms=P99_MS
given = $(if $($(2)),--$(1) "$($(2))")
load: .venv/.loadtest  ## load the local stack, started for it, and check thresholds; RATE=10 P99_MS=800 … (loadtest/README.md)
	.venv/bin/python -m loadtest.local $(foreach pair,$(LOAD),$(call given,$(firstword $(subst =, ,$(pair))),$(lastword $(subst =, ,$(pair)))))

cluster-packages:  ## Debian packages that a node of our own, a browser and Prometheus' rules need in tests
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$(cat tests/support/cluster/packages.txt)

docs: .venv/.docs  ## the documents as a site, site/index.html; a broken link fails it
	.venv/bin/python docs/build.py

lock: | .venv/bin/python  ## requirements/ anew from pyproject.toml; ARGS="--upgrade-package NAME" takes a newer version
	bash requirements/lock.sh $(ARGS)

generate: .venv/.check  ## all that is generated, anew; ARGS="NAME …": only these (helm is built where there is none)
	.venv/bin/python -m tools.generate $(ARGS)

manifests: .venv/.check  ## manifests/ for your site: ARGS="--release ID --namespace N --values FILE"
	.venv/bin/python -m tools.generate.manifests $(ARGS)

chart: .venv/.check  ## the chart as dist/pneumoserve-VERSION.tgz; PUSH=oci://HOST/PATH pushes it too (PLAIN_HTTP=1: without TLS)
	.venv/bin/python -m tools.chart $(if $(PUSH),--push $(PUSH)) $(if $(PLAIN_HTTP),--plain-http)

fuzz: .venv/.dev  ## films changed at random through the decode workers: make fuzz SECONDS=600 (tests/integration/fuzz/README.md)
	.venv/bin/python -m tests.integration.fuzz run --workers 2 --seconds $(or $(SECONDS),60) $(if $(MUTANTS),--mutants $(MUTANTS)) $(if $(FIRST),--first $(FIRST))

lint: .venv/.dev  ## ruff and mypy --strict, and of tests whether what they name is there
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/mypy --package tests --package benchmarks

clean:  ## remove the environment and the local state
	rm -rf .venv state
