#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# On a machine with a GPU, nvcc, torch, triton, pytest, cmake, ninja and pybind11: builds, checks and times.
#
#   tools/gpu.sh [STAGE…]      without one: build tests
#     build         C++ and CUDA C++ for this python3, unless it is built
#     tests         tests/cuda on the device: streams, graphs and memory first, alone; then all families, side by side
#     products convolutions models ragged      benchmarks/gpu, a JSON file each; GPU_FLAGS: options of `python -m gpu`
#     tune          tools/tune_gpu.py: races the package's table for this chip ($OUT/h200.json)
#     sanitizer     compute-sanitizer over one small test of each family: memcheck, racecheck, initcheck
#
# `python3` is the one that holds torch. Logs, figures and tuned configurations go to $OUT (default: gpu-results), one line for
# each stage to its end. LIMIT: seconds for all stages together (default 570: a command on a borrowed machine has 600). docs/gpu.md, "On a borrowed machine", has the commands.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${OUT:-gpu-results}; mkdir -p "$out"
export PYTHONPATH=src:benchmarks${PYTHONPATH:+:$PYTHONPATH} FASTINFER_CUDA=device
export FASTINFER_CACHE=${FASTINFER_CACHE:-/tmp/fastinfer-cache}
limit=${LIMIT:-570} failed=0 here=$SECONDS

stage() {  # NAME LINES COMMAND…: its log in $out, the last lines here, and how it ended
  local name=$1 lines=$2 began=$SECONDS; shift 2
  export LEFT=$((limit - SECONDS + here))
  if [ "$LEFT" -lt 20 ]; then echo "== $name: not begun, $limit s are over" | tee -a "$out/stages"; failed=1; return; fi
  timeout -k 10 "$LEFT" "$@" > "$out/$name.log" 2>&1
  local code=$?
  tail -n "$lines" "$out/$name.log" | cut -c1-400
  echo "== $name: exit $code after $((SECONDS - began)) s" | tee -a "$out/stages"
  [ $code = 0 ] || failed=1
}

has() { python3 -c "import ${1//,/, }" 2> /dev/null; }

build() {
  has fastinfer._core,fastinfer._cuda && return
  rm -rf build-gpu  # a half-made one of another call
  make -s dev PYTHON=python3 BUILD=build-gpu CMAKE_ARGS=-DFASTINFER_CUDA=ON && python3 -c "import fastinfer._core, fastinfer._cuda"
}

tests() {
  local options=(-q --tb=short -p no:cacheprovider --maxfail=60) side=()
  has pytest_timeout && options+=(--timeout=150)
  has xdist && side=(-n "${WORKERS:-12}" --dist loadgroup)
  has uvicorn,orjson,jwt,grpc_health || options+=(--ignore=tests/cuda/front)  # the server's packages
  python3 -m pytest "${options[@]}" tests/cuda/test_device.py tests/cuda/native --durations=5
  local first=$?
  python3 -m pytest "${options[@]}" "${side[@]}" -k "not sm90" --durations=15 \
    --ignore=tests/cuda/test_device.py --ignore=tests/cuda/native tests/cuda
  return $((first | $?))
}

# A checked launch is 10 to 100 times slower, so one small test of each family. Torch's caching allocator would hide what is
# next to an allocation, and who reads what was never written.
sanitizer() {
  command -v compute-sanitizer > /dev/null || { echo "no compute-sanitizer"; return 1; }
  local code=0
  export PYTORCH_NO_CUDA_MEMORY_CACHING=1
  for tool in memcheck racecheck initcheck; do
    echo "-- $tool"
    timeout "${TOOL_LIMIT:-$((LEFT / 3 - 4))}" compute-sanitizer --tool $tool --error-exitcode 9 --print-limit 20 --target-processes all \
      python3 -m pytest -q -x --tb=line -p no:cacheprovider -k "not sm90" $(python3 tests/cuda/pretend/small.py) || code=1
  done
  return $code
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader | tee "$out/device"
[ $# -gt 0 ] || set -- build tests
export -f build tests sanitizer has
for name in "$@"; do
  case $name in
    build | sanitizer) stage "$name" 25 bash -c "$name" ;;
    tune)  # goes on with the table that is in the tree, if it was made by this build
      if [ -f src/fastinfer/cuda/tuned/h200.json ]; then cp -n src/fastinfer/cuda/tuned/h200.json "$out/"; fi
      stage tune 20 python3 tools/tune_gpu.py --seconds "$((limit - SECONDS + here - 90))" --out "$out/h200.json" ;;
    tests) stage tests 45 bash -c tests ;;
    products | convolutions | models | ragged)
      # shellcheck disable=SC2086
      stage "$name" 60 python3 -m gpu --only "$name" --out "$out/$name.json" ${GPU_FLAGS:-} ;;
    *) echo "no stage $name"; exit 2 ;;
  esac
  [ "$name" != build ] || [ $failed = 0 ] || break  # without the modules there is nothing to run
done
cp "$FASTINFER_CACHE"/tuning-*.json "$out/" 2> /dev/null
if [ -n "${KEEP_BUILD:-}" ]; then cp src/fastinfer/_c*.cpython-3*.so "$out/"; fi
echo "all stages: $((SECONDS - here)) s"
exit $failed
