# Two commands do everything: `make run` and `make test`. Both build .venv when it is missing or when
# what it is built from has changed.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PROMPT ?= a red circle moves right

.PHONY: run test lint types format wheel evidence records artifacts clean help

run: $(STAMP)  ## generate a video with the tiny model and say where it is
	$(BIN)/stepvideo run "$(PROMPT)"

test: $(STAMP)  ## the whole CPU test suite
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(STAMP)  ## ruff, lint and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)  ## mypy, strict
	$(BIN)/mypy

format: $(STAMP)  ## let ruff rewrite the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(STAMP)  ## build the wheel and check it from outside the checkout
	$(BIN)/python .ci/check_wheel.py

RESULTS := benchmarks/results
PARITY  := $(BIN)/stepvideo parity

evidence: $(STAMP)  ## docs/EVIDENCE.md from the records in benchmarks/results
	$(BIN)/stepvideo evidence $(RESULTS)/parity $(RESULTS)/ops -o docs/EVIDENCE.md

records: $(STAMP)  ## run the parity suite of every backend that works here, and record it
	$(PARITY) --backend reference --record $(RESULTS)/parity/reference-cpu.json
	$(PARITY) --backend numpy64 --record $(RESULTS)/parity/numpy64-cpu.json
	STEPVIDEO_CUDA_INTERPRET=1 TRITON_INTERPRET=1 \
	    $(PARITY) --backend cuda --record $(RESULTS)/parity/cuda-interpreter.json

artifacts: $(STAMP)  ## parity matrix and a quick benchmark of every row, in build/artifacts
	mkdir -p build/artifacts
	$(PARITY) --backend reference --backend numpy64 --html build/artifacts/parity.html \
	    --record build/artifacts/parity.json
	STEPVIDEO_CUDA_INTERPRET=1 TRITON_INTERPRET=1 \
	    $(PARITY) --backend cuda --dtype float32 --html build/artifacts/parity-interpreted.html
	$(BIN)/stepvideo bench ops --preset tiny --repeats 3 --seconds 0.1 --no-compile \
	    --output build/artifacts/bench

clean:  ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

# The example backend is installed with the project, because its being out of tree is what is tested.
$(STAMP): pyproject.toml constraints.txt examples/stepvideo-numpy64/pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.10 or newer is needed: set PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	    echo "$$($(PYTHON) --version) is too old: set PYTHON to a Python 3.10 or newer"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps --editable examples/stepvideo-numpy64
	touch $(STAMP)
