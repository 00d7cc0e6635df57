PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# four workers for two cores: two of them are often waiting for their servers
WORKERS ?= 4
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder -rs --durations 20

.PHONY: help setup demo test test-all coverage lint docs hooks bench wheel clean

help:          ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25"
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[dev]'
	$(BIN)/csg serve --prepare & $(BIN)/python -m csg_serve.page.runtime & \
		$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib; wait  # on all cores, while the server's environment is loaded
	touch $@

setup: $(VENV)/ready  ## everything into .venv, and the environment of the server into csg's cache

demo: setup    ## the whole pipeline on the embedded digits: train, export, deploy, serve, evaluate
	$(BIN)/csg demo

test: setup    ## the tests in minutes: all but those marked slow
	$(PYTEST) -m "not slow"

test-all: setup  ## all tests, with many examples of each property
	$(PYTEST) --hypothesis-profile slow

coverage: setup  ## the tests in minutes, and how much of each package they run
	$(PYTEST) -m "not slow" --cov --cov-report term

lint: setup    ## style, types, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell *.md csg csg_* benchmarks docs examples tests

docs: setup    ## the site with the API reference, in docs/_build/html; warnings are errors
	$(BIN)/sphinx-build -q -W --keep-going -E docs docs/_build/html

hooks: setup   ## checks before each commit (style, spelling) and each push (types)
	$(BIN)/pre-commit install

bench: setup   ## the measurements that README and docs quote; RUNS=... are exported in every precision
	$(BIN)/python -m benchmarks.training.train_step
	$(BIN)/python -m benchmarks.training.csg_step
	$(BIN)/python -m benchmarks.training.segmentation_loading
	$(BIN)/python -m benchmarks.training.augmentation
	$(BIN)/python -m benchmarks.training.startup
	$(BIN)/python -m benchmarks.serving.segmentation_memory
	$(BIN)/python -m benchmarks.serving.transport
	$(BIN)/python -m benchmarks.serving.overhead
	$(BIN)/python -m benchmarks.serving.variants
	$(BIN)/python -m benchmarks.peers.run
	$(BIN)/python -m benchmarks.serving.soak
	$(BIN)/python -m benchmarks.fuzz --minutes 2
	$(BIN)/python -m benchmarks.export.precisions $(RUNS)

wheel: setup   ## dist/csg-*.whl
	$(BIN)/python -m build --wheel

clean:         ## remove what make built
	rm -rf $(VENV) build dist *.egg-info docs/_build docs/reference/generated
