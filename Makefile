# SPDX-License-Identifier: Apache-2.0
# `make help` lists the targets. PYTHON: for `dev`, the interpreter to build for; for all else, the one that makes VENV.
PYTHON ?= python3
BUILD ?= build
VENV ?= .venv
VPY := $(VENV)/bin/python
BOOT = $(PYTHON) tools/bootstrap.py $(VENV)
# Tools that bootstrap.py may have put into the environment (cmake, ninja) come after the system's own.
IN_VENV = PATH="$$PATH:$(abspath $(VENV))/bin"

.PHONY: help dev native demo test check format test-models bench asan wheel clean
help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

dev:  ## incremental native build next to the Python sources, for PYTHON
	@test -f $(BUILD)/build.ninja || cmake -S . -B $(BUILD) -G Ninja -DFASTINFER_IN_SOURCE=ON $(CMAKE_ARGS) \
		-DPython_EXECUTABLE=$$(command -v $(PYTHON)) -Dpybind11_DIR=$$($(PYTHON) -m pybind11 --cmakedir)
	cmake --build $(BUILD)

# A build folder belongs to one interpreter: another one's is set up anew.
native:
	@if [ -f $(BUILD)/CMakeCache.txt ] && ! grep -q "^_\?Python_EXECUTABLE:.*=$(abspath $(VPY))$$" $(BUILD)/CMakeCache.txt; \
		then echo "$(BUILD) was set up for another Python; configuring anew"; rm -rf $(BUILD); fi
	@$(IN_VENV) $(MAKE) --no-print-directory dev PYTHON=$(abspath $(VPY)) BUILD=$(BUILD)

demo:  ## sets up .venv, builds, runs a real text-recognition model (no torch)
	@$(BOOT) demo
	@$(MAKE) --no-print-directory native
	@$(VPY) models/demo.py

test:  ## sets up .venv with torch and the peers, builds, runs the tests
	@$(BOOT) test
	@$(MAKE) --no-print-directory native
	$(VPY) -m pytest -q

check:  ## ruff, clang-format, mypy, layering
	@$(BOOT) lint,cli
	$(VPY) -m ruff check .
	$(VPY) -m ruff format --check .
	$(VENV)/bin/clang-format --dry-run -Werror $$(git ls-files '*.cc' '*.h' '*.cu' '*.cuh')
	$(VPY) -m mypy
	$(VPY) tests/test_layering.py

format:  ## writes what `check` asks of the layout
	@$(BOOT) lint
	$(VPY) -m ruff check -q --fix --select I .
	$(VPY) -m ruff format -q .
	$(VENV)/bin/clang-format -i $$(git ls-files '*.cc' '*.h' '*.cu' '*.cuh')

test-models:  ## every real model of models/ against ONNX Runtime; installs what it needs (about 700 MB)
	@$(BOOT) test,bench
	@$(MAKE) --no-print-directory native
	@$(VPY) -m models.fetch --all
	$(VPY) -m pytest -q tests_models

bench:  ## the model suite against ONNX Runtime and OpenVINO; writes benchmarks/results/
	@$(BOOT) test,bench
	@$(MAKE) --no-print-directory native
	$(VPY) benchmarks/models.py --json

asan:  ## the native-facing tests under AddressSanitizer and UBSan
	@$(BOOT) test
	@tools/asan.sh $(VPY) $(TESTS)

wheel:  ## a wheel in dist/
	@$(BOOT) ""
	$(VPY) -m pip wheel -q --no-deps --no-build-isolation -w dist .

clean:  ## all that was built; VENV and .cache stay
	rm -rf build build-* dist src/fastinfer/_core*.so src/fastinfer/_cuda*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis
