// SPDX-License-Identifier: Apache-2.0
// Float64 products, for matrices and convolutions: plain blocks that the compiler vectorises for each instruction set.
// Float64 is rare in deployed models; what counts is that it is right, native and not absurdly slow.
#pragma once
#include <cstdint>

namespace fi {

enum class Isa : int;  // csrc/base/cpu.h

constexpr int kTileF64Cols = 16;
constexpr int64_t kTileF64Depth = 256;  // k of one block: 16 columns of it are 32 KiB

// y[m, j] (+)= sum over k of a[m, k] * b[k, j] for j < cols; first: y is overwritten. The sum runs in ascending k, one
// product after the other, whatever rows and cols are. b: rows of kTileF64Cols elements, of which `cols` count.
struct TileF64 {
  int64_t rows, depth, cols;
  const double* a;
  int64_t a_m, a_k;
  const double* b;
  double* y;
  int64_t y_m;
  bool first;
};
using TileF64Fn = void (*)(const TileF64&);
struct TileF64Kernel {
  const char* name;
  TileF64Fn run;
};
TileF64Kernel select_tile_f64(Isa isa);

}  // namespace fi
