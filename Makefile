PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: help setup demo test lint bench wheel clean

help:          ## what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25"
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

setup: $(VENV)/ready  ## everything into .venv

demo: setup    ## the whole road on the embedded digits: train, export, deploy, serve, evaluate
	$(BIN)/csg demo

test: setup    ## all tests, the real server included
	$(BIN)/python -m pytest

lint: setup    ## style, types, import rule
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup   ## the measurements that README and docs quote; RUNS=... are exported in every precision
	$(BIN)/python benchmarks/train_step.py
	$(BIN)/python benchmarks/csg_step.py
	$(BIN)/python benchmarks/scene_loading.py
	$(BIN)/python benchmarks/scene_memory.py
	$(BIN)/python benchmarks/transport.py
	$(BIN)/python benchmarks/serving_overhead.py
	$(BIN)/python benchmarks/peers/run.py
	$(BIN)/python benchmarks/soak.py
	$(BIN)/python benchmarks/fuzz.py --minutes 2
	$(BIN)/python benchmarks/export_precision.py $(RUNS)

wheel: setup   ## dist/csg-*.whl
	$(BIN)/python -m build --wheel

clean:         ## remove what make built
	rm -rf $(VENV) build dist *.egg-info
