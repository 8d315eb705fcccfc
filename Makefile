# `make demo` and `make test` set everything up in .venv from a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
NATIVE := $(shell find plugins -path '*/third_party' -prune -o \( -name '*.h' -o -name '*.cc' -o -name '*.cu' -o -name '*.cuh' \) -print)

# One thread in each of two workers is faster than two threads in one; `loadfile` keeps a file's fixtures together.
test test-isa campaign: export OMP_NUM_THREADS = 1
WORKERS := --numprocesses 2 --dist loadfile

.PHONY: setup demo test test-isa campaign check fix fuzz sanitize clean

setup: $(READY)

$(READY): pyproject.toml setup.py $(wildcard plugins/CMakeLists.txt)
	@echo "creating $(VENV); the packages with PyTorch need several GB and minutes, and the operators are compiled"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade "pip>=25" "setuptools>=77" wheel cmake ninja
	$(BIN)/pip install --disable-pip-version-check --no-build-isolation --editable ".[dev]"
	touch $@

demo: $(READY)
	$(BIN)/python examples/demo.py

test: $(READY) check
	$(BIN)/python -m pytest -m "not gpu" $(WORKERS) --processor-times 20
	$(MAKE) test-isa

# The numerically sensitive tests once more, with all libraries held to AVX2 and then to their portable paths.
test-isa: $(READY)
	$(BIN)/python -m tests.processors avx2 $(WORKERS)
	$(BIN)/python -m tests.processors baseline $(WORKERS)

# What takes minutes or hours: thousands of damaged and odd inputs, recipes that overfit whole clips, exports of whole
# backbones, the fuzz target with all kernels.
campaign: $(READY)
	$(BIN)/python -m tests.campaigns
	$(BIN)/python -m tests.campaigns.media
	$(BIN)/python -m tests.campaigns.media_program
	$(BIN)/python -m pytest -m campaign --numprocesses 2 --timeout 0 --processor-times 20

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(NATIVE)
	$(BIN)/mypy

fix: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(NATIVE)

# Ten minutes of random calls under AddressSanitizer and UndefinedBehaviorSanitizer; any C++ compiler will do.
fuzz: $(READY)
	plugins/tools/sanitize.sh fuzz 600 1

# The tests of the operators' C++ code under the same sanitizers.
sanitize: $(READY)
	plugins/tools/sanitize.sh test

clean:
	rm -rf build dist demo *.egg-info .pytest_cache .mypy_cache .ruff_cache
