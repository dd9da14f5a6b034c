// SPDX-License-Identifier: Apache-2.0
// Steps over kernels/gemm/tile_f64.h: matrix products and direct convolutions of float64.
#pragma once
#include "csrc/base/step.h"
#include "kernels/gemm/plain.h"
#include "kernels/gemm/tile_f64.h"

namespace fi {

// args: A, B, C or null, Y, as for plain_matmul_step.
struct MatMulF64 {
  PlainMatMul shape;
  TileF64Fn tile;
};
Status matmul_f64_step(const void* params, void* const* args, int part, int parts);

// Channels first, up to three spatial axes (leading ones 1). args: X, W, bias or null, Y. Work is cut by panels of
// output pixels.
struct ConvF64 {
  TileF64Fn tile;
  int64_t batch, groups, in_per_group, out_per_group;
  int64_t in[3], out[3], kernel[3], stride[3], dilation[3], pad[3];
};
Status conv_f64_step(const void* params, void* const* args, int part, int parts);

}  // namespace fi
