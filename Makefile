# Two commands do everything: `make run` and `make test`. Both build .venv when it is missing or when
# what it is built from has changed. `make test-npu` has an environment of its own, since torch_npu
# changes torch itself.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PROMPT ?= a red circle moves right

NPU_VENV  ?= .venv-npu
NPU_BIN   := $(NPU_VENV)/bin
NPU_STAMP := $(NPU_VENV)/.installed
# Older releases of torch_npu whose operator schemas our calls are held against; never installed.
NPU_OLDER := 2.8.0.post5 2.7.1.post11

.PHONY: run test test-npu lint types format wheel evidence records records-npu artifacts clean help

run: $(STAMP)  ## generate a video with the tiny model and say where it is
	$(BIN)/stepvideo run "$(PROMPT)"

test: $(STAMP)  ## the whole CPU test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 $(PYTEST_ARGS)

test-npu: $(NPU_STAMP)  ## the Ascend backend on the virtual NPU (Linux, no NPU needed)
	$(NPU_BIN)/python -m pytest tests/npu $(PYTEST_ARGS)

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

VIRTUAL := $(NPU_BIN)/python -m stepvideo_virtual_npu

records-npu: $(NPU_STAMP)  ## the same for the Ascend backend, on the virtual NPU
	$(VIRTUAL) --soc 910B2 -- stepvideo parity --backend npu \
	    --record $(RESULTS)/parity/npu-virtual-910b2.json
	$(VIRTUAL) --soc 310P3 -- stepvideo parity --backend npu --dtype float16 \
	    --record $(RESULTS)/parity/npu-virtual-310p3.json

artifacts: $(STAMP)  ## parity matrix and a quick benchmark of every row, in build/artifacts
	mkdir -p build/artifacts
	$(PARITY) --backend reference --backend numpy64 --html build/artifacts/parity.html \
	    --record build/artifacts/parity.json
	STEPVIDEO_CUDA_INTERPRET=1 TRITON_INTERPRET=1 \
	    $(PARITY) --backend cuda --dtype float32 --html build/artifacts/parity-interpreted.html
	$(BIN)/stepvideo bench ops --preset tiny --passes 2 --repeats 2 --seconds 0.1 --no-compile \
	    --output build/artifacts/bench

clean:  ## remove the environment and caches
	rm -rf $(VENV) $(NPU_VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

# The example backend is installed with the project, because its being out of tree is what is tested.
$(STAMP): pyproject.toml constraints.txt examples/stepvideo-numpy64/pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.10 or newer is needed: set PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	    echo "$$($(PYTHON) --version) is too old: set PYTHON to a Python 3.10 or newer"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps --editable examples/stepvideo-numpy64
	touch $(STAMP)

# torch_npu comes without its dependencies, so that the torch which is there stays. It must be a CPU
# build: where the package index has others only, name the index that has it in PIP_INDEX_URL.
$(NPU_STAMP): pyproject.toml constraints.txt constraints-npu.txt
	@case "$$(uname -s)-$$(uname -m)" in Linux-x86_64|Linux-aarch64) ;; *) \
	    echo "make test-npu needs Linux on x86-64 or aarch64, for which torch_npu is published"; \
	    exit 1;; esac
	$(PYTHON) -m venv $(NPU_VENV)
	$(NPU_BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[virtual-npu]'
	$(NPU_BIN)/python -m pip install --quiet --no-deps --requirement constraints-npu.txt
	for version in $(NPU_OLDER); do \
	    $(NPU_BIN)/python -m pip download --quiet --no-deps --only-binary :all: \
	        --python-version 3.11 --dest $(NPU_VENV)/older torch_npu==$$version || exit 1; \
	done
	touch $(NPU_STAMP)
