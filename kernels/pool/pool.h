// SPDX-License-Identifier: Apache-2.0
// Pooling over windows, channels last (f32, bf16 with f32 sums, and the maximum of bytes) or any layout (plain C++, any
// type):
//
//   max      Y[o] = max  of X[i] over the taps inside the image (NaN if one is NaN)
//   average  Y[o] = sum  of X[i] over the taps inside the image / number of taps (inside the image, or with
//                   count_include_pad inside the padded image)
//   lp       Y[o] = (sum of |X[i]|^p)^(1/p)
//
// Sums are chains from 0 in tap order.
#pragma once
#include "csrc/base/cpu.h"
#include "csrc/base/dtype.h"
#include "csrc/base/step.h"
#include "kernels/conv/geometry.h"

namespace fi {

enum class PoolKind : int32_t { max, average, lp };

struct PoolStep {
  Geometry g;
  int64_t batch = 0, channels = 0;
  int64_t x_pixel = 0, y_pixel = 0;  // elements from one pixel to the next; looked at by the vectorised kernels only
  PoolKind kind = PoolKind::max;
  bool count_include_pad = false;
  int64_t p = 2;
  // For the plain kernel only: strides in elements of a channel and of a pixel; images are channels * pixels apart.
  bool channels_last = false;
  bool column_major = false;  // Indices: the first spatial axis runs fastest
};

struct PoolKernel {
  const char* name = nullptr;
  StepFn run =
      nullptr;  // params: PoolStep. args: X, Y, and for the plain maximum also Indices (s64 [N, C, out...]) or null
};
// Channels last; {} if there is none for this type and kind.
PoolKernel select_pool(Isa, const PoolStep&, DType);
// Any layout; f32, f64, u8 and s8; {} for other types.
PoolKernel plain_pool(const PoolStep&, DType);
double cost_of(const PoolStep&);

// Pooling over the whole image. X is [outer, n, inner], Y [outer, inner]: NCHW has inner = 1, NHWC outer = batch.
struct GlobalPoolStep {
  int64_t outer = 0, n = 0, inner = 0;
  PoolKind kind = PoolKind::average;
  int64_t p = 2;
};
PoolKernel select_global_pool(Isa, const GlobalPoolStep&, DType);  // args: X, Y
PoolKernel plain_global_pool(DType);                               // f32 and f64; {} for other types

// The number of taps by which an average is divided is the product of these over the axes.
inline int64_t pool_axis_count(const Geometry& g, int axis, int64_t o, const Taps& in, bool include_pad) {
  if (!include_pad) return in.end - in.begin;
  // Taps before the end of the padded image; a window of ceil_mode may reach beyond it.
  const int64_t room = g.in[axis] + g.pad[axis] + g.pad_end[axis] - o * g.stride[axis];
  const int64_t n = (room + g.dilation[axis] - 1) / g.dilation[axis];
  return n > g.kernel[axis] ? g.kernel[axis] : n;
}
inline int64_t pool_count(const Geometry& g, const int64_t* o, const Taps* in, bool include_pad) {
  int64_t count = 1;
  for (int a = 0; a < 3; ++a) count *= pool_axis_count(g, a, o[a], in[a], include_pad);
  return count;
}

}  // namespace fi
