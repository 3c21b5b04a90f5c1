# Every target sets up what it needs: .venv, with the versions of constraints.txt. `make` alone lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo demo-retrain test chaos test-cluster image check format docs site bench quality soak broker constraints clean

BIN := .venv/bin
READY := .venv/.ready
say = @printf '==> %s\n'

KILLS ?= 1000
JOBS ?= 2
ENGINE ?= docker
VARIANT ?= cpu
VERSION = $(shell awk -F '"' '/^version = / { print $$2; exit }' pyproject.toml)
ARGS ?=
export PYTHON

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(READY): pyproject.toml constraints.txt .ci/setup
	@.ci/setup

demo: $(READY) ## real readings through real Kafka into two Ray actors, one kill -9 (ARGS="--keep" leaves it serving)
	$(say) "streamrnn demo"
	@$(BIN)/streamrnn demo $(ARGS)

demo-retrain: $(READY) ## a sensor's unit changes: drift, retraining on Ray Train, shadow, promotion (ARGS="--quick": smaller)
	$(say) "streamrnn demo-retrain"
	@$(BIN)/streamrnn demo-retrain $(ARGS)

# A job a core: tests keep them busy for six sevenths of the time. Bytecode is written: a compiler in each of hundreds of
# processes costs minutes.
test: $(READY) ## every test, against real Kafka and real Ray (ARGS="-k name" for some; JOBS=1: one after the other)
	$(say) "tests"
	@env -u PYTHONDONTWRITEBYTECODE \
		$(BIN)/pytest -m "not cluster and not long" -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

chaos: $(READY) ## the kills and cut connections of `make test` in full length (a quarter of an hour)
	$(say) "chaos"
	@$(BIN)/pytest -m long $(ARGS)

test-cluster: $(READY) ## the image, and the chart on a real one-node Kubernetes (Linux, root; Go the first time)
	$(say) "Debian's packages for a node"
	@tests/cluster/packages.sh
	$(say) "tests on a cluster"
	@$(BIN)/pytest -m cluster $(ARGS)

image: ## the container image, with docker (ENGINE=podman or buildah; VARIANT=cuda for GPUs)
	$(say) "streamrnn:$(VERSION), variant $(VARIANT)"
	@$(ENGINE) build -f deploy/Dockerfile -t streamrnn:$(VERSION) --build-arg VARIANT=$(VARIANT) \
		--build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) $(ARGS) .

check: $(READY) ## format, lint, types, import law, spelling, documents
	$(say) "format (ruff)"
	@$(BIN)/ruff format --check --quiet --output-format concise . || { echo "run: make format" >&2; exit 1; }
	$(say) "lint (ruff)"
	@$(BIN)/ruff check --quiet --output-format concise .
	$(say) "types (mypy)"
	@$(BIN)/mypy --no-error-summary
	$(say) "import law (import-linter)"
	@$(BIN)/lint-imports --cache-dir .cache/import-linter
	$(say) "spelling (codespell)"
	@$(BIN)/codespell .
	$(say) "packaging, layout, metric names, documents (tests/house)"
	@$(BIN)/pytest -q tests/house

format: $(READY) ## put the code into shape
	@$(BIN)/ruff check --fix --exit-zero --quiet --output-format concise .
	@$(BIN)/ruff format .

docs: $(READY) ## make the documents that are made of code
	$(say) "docs/metrics.md"
	@$(BIN)/python -m services.telemetry.metrics_page > docs/metrics.md
	$(say) "docs/asyncapi.yaml"
	@$(BIN)/python -m services.wire > docs/asyncapi.yaml
	$(say) "docs/configuration.md, docs/commands.md"
	@$(BIN)/python -m services.cli.reference configuration > docs/configuration.md
	@$(BIN)/python -m services.cli.reference commands > docs/commands.md
	$(say) "deploy/grafana/dashboards/*.json"
	@$(BIN)/python -m deploy.grafana.make
	$(say) "the chart's values.schema.json, table of values, rules and dashboards"
	@$(BIN)/python -m deploy.chart_files > /dev/null
	$(say) "docs/lecture/*.png (measured; half a minute)"
	@$(BIN)/python docs/lecture/plots.py
	$(say) "docs/page.png (the page of a real service in Chromium; a minute)"
	@$(BIN)/python docs/page.py

site: $(READY) ## the documents as a site that works offline, in build/site
	$(say) "build/site (zensical, warnings are errors)"
	@$(BIN)/python docs/site/build.py build/site

bench: $(READY) ## benchmarks side by side, into bench/results/latest.json
	$(say) "benchmarks"
	@$(BIN)/python -m bench $(ARGS)

quality: $(READY) ## how good forecasts are on four data sets, into bench/results/quality.json
	$(say) "streamrnn backtest on four data sets"
	@$(BIN)/python -m bench.quality

soak: $(READY) ## kill -9 again and again on real Kafka (KILLS=1000); the last line is one JSON object
	$(say) "soak with $(KILLS) kills"
	@$(BIN)/python tests/support/chaos.py --kills $(KILLS) $(ARGS)

dist: $(READY) ## the wheel and the source distribution, in dist/
	$(say) "wheel and source distribution"
	@rm -rf dist build
	@$(BIN)/uv build --quiet --no-build-isolation --out-dir dist
	@rm -rf build
	@ls dist

broker: $(READY) ## an Apache Kafka for development (ARGS=stop or status for the others)
	@$(BIN)/streamrnn broker $(or $(ARGS),start)

constraints: $(READY) ## name newer versions in constraints.txt where pyproject.toml allows them (ARGS="--upgrade")
	$(say) "constraints.txt"
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --generate-hashes --no-annotate \
		--no-header --no-emit-index-url --no-emit-find-links pyproject.toml -o constraints.txt $(ARGS)

clean: ## remove .venv, caches and what the demo left
	$(say) "removing .venv, caches, build and demo-output"
	@rm -rf .venv .cache .hypothesis build dist *.egg-info demo-output
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
