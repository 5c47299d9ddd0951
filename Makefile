# Never `uv run` or a bare `uv sync`: both would rebuild llama.cpp without this machine's flags. `.ci/setup` knows them.
.DEFAULT_GOAL := help
.PHONY: help setup panel run test test-full lint format bench-engine bench-fleet bench-http bench-kv bench-panel bench-queue bench-routing bench-scale chaos clean docs

BIN := .venv/bin
JOBS ?= 2
ARGS ?=
# Else the wrapper asks the package index whether there is a newer pyright; uv.lock decides that.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

help: ## these lines
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## build .venv: packages, and llama.cpp for this CPU (minutes, once)
	@.ci/setup

panel: setup ## build the web admin panel (a minute the first time, nothing where nothing changed)
	@.ci/panel

run: setup ## a whole fleet on this machine; ARGS="--slots 8" goes to `paddler up`
	@.ci/panel || echo "run: going on without the panel"
	@exec $(BIN)/paddler up $(ARGS)

test: lint ## lint, types and all tests; ARGS="tests/unit -k name" goes to pytest, JOBS=2
	@.ci/test-packages
	@.ci/panel --test
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup $(ARGS)

test-full: lint ## the random tests of the queue, of schemas, tools, states and HTTP in their full sizes, an hour or so
	@PADDLER_TEST_SIZE=full $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup tests/redis tests/engine/test_structured_output.py tests/engine/test_tool_choice.py tests/engine/test_tiers.py tests/http/test_fuzz.py $(ARGS)

lint: setup ## ruff and pyright
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright

format: setup ## let ruff rewrite what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench-engine: setup ## the engine beside the bare llama_decode loop; ARGS=--http: the fleet beside llama-server; --prefix
	@$(BIN)/python -m tests.bench.engine $(ARGS)

bench-fleet: setup ## a fleet beside llama-servers behind nginx, by `paddler bench`; ARGS="--rate 1" or ARGS=--smoke
	@.ci/test-packages nginx
	@$(BIN)/python -m tests.bench.fleet $(ARGS)

bench-http: setup ## a balancer beside a plain ASGI stream and LiteLLM's proxy; ARGS="--quick" or ARGS="--no-litellm"
	@$(BIN)/python -m tests.bench.http_cost $(ARGS)

bench-kv: setup ## what saved states bring: from another agent, the store, a disk, memory; from zero; on SIGTERM
	@$(BIN)/python -m tests.bench.kv $(ARGS)

bench-panel: panel ## the panel in Chromium with 5,000 requests and 500 agents in view; ARGS="--seconds 3"
	@$(BIN)/python -m tests.bench.panel $(ARGS)

bench-queue: setup ## latency that the queue adds, with the scripted engine
	@$(BIN)/python -m tests.bench.queue_latency $(ARGS)

bench-routing: setup ## the routing policy beside the field's, simulated; ARGS="--quick" or ARGS="--out docs"
	@$(BIN)/python -m tests.bench.routing --jobs $(JOBS) $(ARGS)

bench-scale: setup ## what 1,000 agents cost one Valkey, and how many a shard can hold; ARGS="--agents 10 100"
	@$(BIN)/python -m tests.bench.scale $(ARGS)

chaos: setup ## 20,000 requests while agents, balancers and Valkey are killed; ARGS="--mode always --seed 7"
	@$(BIN)/python -m tests.chaos.run $(ARGS)
	@PADDLER_TEST_SIZE=full $(BIN)/python -m pytest tests/chaos/test_kv_tiers.py

docs: setup ## the documentation's site, into site/: docs/, and the reference made of the code
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict $(ARGS)

clean: ## remove .venv, caches and built packages
	rm -rf .venv .cache dist site api/panel/dist api/panel/web/node_modules .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
