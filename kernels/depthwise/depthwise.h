// SPDX-License-Identifier: Apache-2.0
// Depthwise convolution, channels last:
//
//   Y[n, o, c] = epilogue( sum over taps t of  X[n, o * stride - pad + t * dilation, c] * W[t, c] )
//
// X outside the image is 0. The sum is one chain of multiply-adds from 0 in tap order; taps outside the image are left
// out of it or multiply by 0.
#pragma once
#include "csrc/base/cpu.h"
#include "csrc/base/step.h"
#include "kernels/conv/geometry.h"
#include "kernels/gemm/epilogue.h"

namespace fi {

struct DepthwiseF32 {
  Geometry g;
  int64_t batch = 0, channels = 0;
  Epilogue epilogue;  // scale is not looked at
};

// A variant (a row of kernels.inc). kw, sw: the kernel width and column stride it is for, undilated; 0: any.
struct DepthwiseKernel {
  const char* name;
  Isa isa;
  int kw, sw;
  // params: DepthwiseF32. args: X, W [taps, C], bias [C] or null, residual (as Y) or null, Y, scratch of
  // depthwise_scratch_floats per part (a line of zeros; whole pairs of cache lines).
  StepFn run;
};
static inline int64_t depthwise_scratch_floats(const DepthwiseF32& p) { return (p.channels + 31) / 32 * 32; }
const DepthwiseKernel& depthwise_f32(Isa, const DepthwiseF32&);
// The same with X, residual and Y in bfloat16; weights, sums and activations stay float32.
const DepthwiseKernel& depthwise_bf16(Isa, const DepthwiseF32&);
// In the units of PlanContext::parts_for.
double cost_of(const DepthwiseF32&);

// [C, taps] → [taps, C] and back.
void depthwise_pack(const float* w, int64_t channels, int64_t taps, float* packed);
void depthwise_unpack(const float* packed, int64_t channels, int64_t taps, float* w);

}  // namespace fi
