#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# asan.sh PYTHON [TEST...]: builds with AddressSanitizer and UBSan into build-asan and runs the native-facing tests.
# The sanitized _core lies in a folder of its own, with links to the Python sources, so that a usual build stays usable.
set -euo pipefail
python=$(readlink -m "$(dirname "$1")")/$(basename "$1"); shift
cd "$(dirname "$0")/.."
build=build-asan
tests=("$@")
if [ ${#tests[@]} = 0 ]; then
  # Tests that hand data to native code; those that mainly exercise torch's exporter or the peers gain nothing here.
  tests=(tests/test_smoke.py tests/test_same_bits.py tests/engine tests/fuzz tests/ops)
fi
PATH="$PATH:$(dirname "$python")"
cmake -S . -B $build -G Ninja -DFASTINFER_SANITIZE=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo \
  -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-O1 -g1" -DPython_EXECUTABLE="$python" \
  -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" >/dev/null
cmake --build $build
mkdir -p $build/package/fastinfer
for entry in src/fastinfer/*; do
  case $entry in *.so | *__pycache__) ;; *) ln -sfn "../../../$entry" $build/package/fastinfer/ ;; esac
done
ln -sf ../../"$(cd $build && ls _core*.so)" $build/package/fastinfer/
runtime() { "${CXX:-c++}" -print-file-name="$1"; }
# Leaks: CPython keeps interned objects to the end, so leak reports at exit are off; everything else aborts the run.
LD_PRELOAD="$(runtime libasan.so) $(runtime libubsan.so) $(runtime libstdc++.so)" PYTHONPATH=$build/package PYTHONMALLOC=malloc \
  ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:allocator_may_return_null=1 \
  UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
  "$python" -m pytest -q -x -p no:cacheprovider "${tests[@]}"
