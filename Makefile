# SPDX-License-Identifier: Apache-2.0
PYTHON ?= python3
BUILD ?= build

.PHONY: dev
dev:  ## incremental native build next to the Python sources
	@test -f $(BUILD)/build.ninja || cmake -S . -B $(BUILD) -G Ninja -DFASTINFER_IN_SOURCE=ON \
		-DPython_EXECUTABLE=$$(command -v $(PYTHON)) -Dpybind11_DIR=$$($(PYTHON) -m pybind11 --cmakedir)
	cmake --build $(BUILD)
