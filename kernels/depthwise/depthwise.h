// SPDX-License-Identifier: Apache-2.0
// Depthwise convolution on channels-last data:
//   Y[p, c] = epilogue( sum over taps t of  X[pixel(p, t), c] * W[t, c] )
// vectorised over channels, weights of a kernel row in registers, several output pixels at once. Taps in the padding are
// left out; the others ascend, whatever the blocking.
#pragma once
#include "csrc/base/cpu.h"
#include "csrc/base/step.h"
#include "kernels/conv/geometry.h"
#include "kernels/gemm/epilogue.h"

namespace fi {

// One output row of one image, all channels.
struct DepthwiseRow {
  const float* const* rows;  // [kernel depth * kernel height]: input rows, null in the padding
  int64_t row_taps;          // entries of rows
  const float* weights;      // [taps][channels]
  const float* bias;         // [channels] or null
  const float* residual;     // this row of R, or null
  float* y;                  // this row of Y
};

struct DepthwiseStep;
struct DepthwiseF32 {
  const char* name;
  Isa isa;
  void (*row)(const DepthwiseStep&, const DepthwiseRow&);
};
const DepthwiseF32& depthwise_f32(Isa);

struct DepthwiseStep {
  const DepthwiseF32* kernel = nullptr;
  Geometry window;
  int64_t batch = 0, channels = 0;
  Epilogue epilogue;
};
// args: X, W [taps][C], bias or null, R or null, Y.
Status depthwise_step(const void* params, void* const* args, int part, int parts);

}  // namespace fi
