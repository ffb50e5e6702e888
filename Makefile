# make demo: install and search the built-in demo.   make test: the whole suite.   make lint: ruff and mypy.
# make bench: speed on this machine, 15 minutes, 9 GB in build/, 11 GB of memory; on your ECGs: make bench DATA=PATH
# Any Python from 3.11 on will do: make demo PYTHON=python3.12

PYTHON ?= python3
DATA ?= build/bench-ecgs
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test lint bench clean

demo: $(VENV)/.installed
	$(BIN)/fgclep demo --out demo-output

test: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed-test $(DATA)
	$(BIN)/python benchmarks/read_records.py $(DATA)
	$(BIN)/python benchmarks/throughput.py --memory 2000 50000
	$(BIN)/python benchmarks/throughput.py --preset resnet1d-50 --records 600 --memory
	$(BIN)/python benchmarks/loader.py
	$(BIN)/python benchmarks/search_backends.py --index fgclep/demo/index
	$(BIN)/python benchmarks/scale.py --home build/bench-home
	FGCLEP_HOME=build/bench-home $(BIN)/python benchmarks/cold_start.py --index scale

build/bench-ecgs: | $(VENV)/.installed
	$(BIN)/fgclep data synth $@ -n 500 --seed 7

clean:
	rm -rf $(VENV) demo-output build dist

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: fgclep needs Python 3.11 or newer; hint: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt hatch_build.py fgclep/frames_kernel.c indexer/backends/scan_kernel.c | $(BIN)/python
	@echo "Installing fgclep into $(VENV) (a few minutes the first time) ..."
	$(INSTALL) --editable '.[cpu]'
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(INSTALL) --editable '.[cpu,delineate,evaluate,server,train,test]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-test
	$(INSTALL) --editable '.[cpu,delineate,evaluate,server,train,test,dev]'
	@touch $@
