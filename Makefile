# One line a target. PYTHON is any Python from 3.10 on; everything is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
C_FILES = $(shell git ls-files '*.c' '*.h' '*.cpp' '*.hpp' 2>/dev/null || find csrc tests examples -name '*.[ch]' -o -name '*.[ch]pp')

READER ?= npz torch safetensors clstm onnx c
SECONDS ?= 60

.PHONY: demo test test-long test-arm fuzz sweep accuracy check format bench baselines clean

$(BIN)/python: ; $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet --upgrade pip

demo: $(BIN)/python ; $(BIN)/pip install --quiet . && $(BIN)/python examples/co2/stream.py

test: $(BIN)/python ; $(BIN)/pip install --quiet -e ".[test]" && $(BIN)/pytest -n 2 -q -m "not long and not timing" && $(BIN)/pytest -q -m timing

test-long: ; $(BIN)/pytest -m long -rA

test-arm: ; bash tests/native/arm.sh

# Long forms that go on where they were; ARGS="--threads 2", or another --resume.
sweep: ; PYTHONPATH=tests $(BIN)/python tests/native/sweep.py --resume build/sweep $(ARGS)

accuracy: ; PYTHONPATH=tests $(BIN)/python tests/parity/accuracy.py --resume build/accuracy $(ARGS)

fuzz: ; for reader in $(READER); do $(BIN)/python fuzz/fuzz.py $$reader --seconds $(SECONDS) || exit; done

check: ; $(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/clang-format --dry-run -Werror $(C_FILES) && $(BIN)/mypy && $(BIN)/stubtest clstm._core --allowlist tests/typing/stubtest.allow

format: ; $(BIN)/ruff check --fix . && $(BIN)/ruff format . && $(BIN)/clang-format -i $(C_FILES)

bench: $(BIN)/python ; $(BIN)/pip install --quiet -e ".[bench]" && $(BIN)/python benchmarks/suite.py

baselines: ; $(BIN)/python tests/native/counts.py

clean: ; rm -rf $(VENV) build dist *.egg-info clstm/*.so clstm/include clstm/lib
