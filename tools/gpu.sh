#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# On a machine with a GPU, nvcc, torch and triton: builds, checks and times everything; results go to $OUT (default: the
# folder gpu-results). `python3` is the one that holds torch. TUNE=1: races the package's table for this chip first ($OUT/h200.json).
set -uo pipefail
cd "$(dirname "$0")/.."
out=${OUT:-gpu-results}; mkdir -p "$out"
export PYTHONPATH=src:benchmarks FASTINFER_CACHE=${FASTINFER_CACHE:-/tmp/fastinfer-cache}
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader | tee "$out/device"
make -s dev PYTHON=python3 BUILD=build-gpu 2>&1 | tail -3 || exit 1
FASTINFER_CUDA=device python3 -m pytest -q -x --maxfail=50 tests/cuda 2>&1 | tee "$out/tests" | tail -40
[ -z "${TUNE:-}" ] || python3 tools/tune_gpu.py --out "$out/h200.json" 2>&1 | tee "$out/tune" | tail -20
FASTINFER_CUDA=device python3 -m gpu --out "$out/gpu.json" "$@" 2>&1 | tee "$out/bench" | tail -80
if command -v compute-sanitizer > /dev/null; then
  FASTINFER_CUDA=device timeout 240 compute-sanitizer --error-exitcode 9 python3 -m pytest -q -x tests/cuda -m gpu 2>&1 | tail -5 | tee "$out/sanitizer"
fi
