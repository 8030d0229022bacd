# Each target does its own set-up: a clone, git, make and Python 3.11 are enough. `make` lists them.
SHELL := /bin/bash
BIN := .venv/bin
.DEFAULT_GOAL := help
.PHONY: help setup demo check reference dashboards test test-all test-faults test-transformers test-compose test-kubernetes test-security test-clients test-observe fuzz bench bench-peers plots kafka jars clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## make .venv with the pinned dependencies, those for development included
	@deploy/venv.sh dev

demo: ## tenants, adapters, a broker and a worker on this machine, streaming to the screen
	@deploy/venv.sh demo
	@$(BIN)/aril demo

check: setup ## lint, format, types, import rules, docs/reference and dashboards, as CI runs them
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.support.reference --check
	$(BIN)/python -m tests.support.dashboards --check

reference: setup ## write docs/reference/ anew from what the code says of itself
	$(BIN)/python -m tests.support.reference

dashboards: setup ## write deploy/observe/grafana/dashboards/ anew from the descriptions beside it
	$(BIN)/python -m tests.support.dashboards

# Whole files go to each process, so that what a file shares is made once.
SIDE_BY_SIDE := -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: check jars ## check, then the tests, on Apache Kafka where Java and Maven are there
	$(BIN)/pytest -m "not slow" $(SIDE_BY_SIDE)

test-all: test ## the same, then the slow tests
	$(BIN)/pytest -m slow

test-faults: setup jars ## kill, halt, cut off for ten minutes (FAULT_SEED, _SECONDS, _JOBS, _FAULTS)
	$(BIN)/pytest -rP tests/faults

test-transformers: setup ## models and adapters on the oldest transformers that is allowed, and the newest there is
	deploy/transformers.sh

test-compose: setup ## the compose stack for real: scale it, kill a worker, count the streams
	deploy/standins/images.sh
	REQUIRE_DOCKER=1 $(BIN)/pytest -rP tests/deploy/test_compose.py

test-kubernetes: setup ## the manifests, every overlay with all that can go into it, through kustomize and strict kubeconform
	deploy/kubernetes/tools.sh
	REQUIRE_KUSTOMIZE=1 $(BIN)/pytest -rs tests/deploy/test_kubernetes.py

test-security: setup jars ## Kafka with TLS, SCRAM, tokens and an authorizer: what tenants cannot do, what workers need
	$(BIN)/pytest -rP -m slow tests/security

test-clients: setup jars ## the clients in Go, Node and Java: their own tests, then against live workers on a real broker
	REQUIRE_GO=1 REQUIRE_NODE=1 $(BIN)/pytest -rs -m slow tests/clients

test-observe: setup jars ## promtool's tests of the alerts, every query of the dashboards on a real Prometheus
	deploy/observe/tools.sh
	REQUIRE_PROMETHEUS=1 $(BIN)/pytest -rP tests/deploy/test_observe.py tests/integration/test_dashboards.py

fuzz: setup ## millions of bad inputs to all that strangers send (FUZZ_CASES, FUZZ_SEED); goes on where it stopped
	$(BIN)/python -m tests.fuzz --cases $(or $(FUZZ_CASES),10000000) --seed $(or $(FUZZ_SEED),1)

bench: setup jars ## the benchmarks: print their tables, write their CSV
	@for file in $$(grep -l '^QUESTION' benchmarks/*.py); do \
	  $(BIN)/python -m benchmarks.$$(basename $$file .py) || exit; done

bench-peers: setup ## Aril beside vLLM, llama.cpp, OpenVINO GenAI and PEFT on this CPU: 10 GB, an hour and more
	benchmarks/peers_cpu/setup.sh build/peers-cpu vllm llama openvino
	$(BIN)/python -m benchmarks.peers_cpu

plots: setup ## draw the pictures in docs/images/ from benchmarks/results/
	$(BIN)/python -m benchmarks.plots

kafka: ## an Apache Kafka on 127.0.0.1:9092 in the foreground (KAFKA_PORT for another port)
	@deploy/kafka/run.sh

jars:
	@deploy/kafka/fetch.sh || echo "so tests run on the embedded broker"

clean: ## remove what these targets made, but for .venv
	rm -rf build dist *.egg-info clients/node/dist clients/node/build clients/node/node_modules clients/java/target .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
