// SPDX-License-Identifier: Apache-2.0
// Convolution and transposed convolution as in conv.h, on bfloat16 input and weights with float32 sums. Y and the
// residual are float32 or bfloat16.
#pragma once
#include "kernels/conv/conv.h"
#include "kernels/gemm/gemm_bf16.h"

namespace fi {

struct ConvBF16 {
  Geometry g;
  int64_t batch = 0, groups = 1;
  int64_t in_channels = 0, out_channels = 0;  // of all groups
  bool transposed = false;
  int64_t pixel_elements = 0, k = 0;  // as ConvF32's pixel_floats and k
  bool split_channels = false;
  int64_t block = 0;
  bool y_bf16 = false, residual_bf16 = false;
  const GemmBF16* kernel = nullptr;
  Epilogue epilogue;
};

// Fills block and split_channels, and returns what the work is worth to PlanContext::parts_for.
double conv_bf16_prepare(ConvBF16&);
size_t conv_bf16_scratch(const ConvBF16&, int parts);  // bytes
// args: X, W packed, bias [out_channels] or null, residual (as Y) or null, Y, scratch. Y must not be the residual.
Status conv_bf16_step(const void* params, void* const* args, int part, int parts);

// Weights: per group, panels of gemm_bf16.h in conv.h's order of taps. ConvWeights::nr is not looked at.
int64_t conv_bf16_packed_elements(const ConvWeights&);
void conv_bf16_pack(const ConvWeights&, const float* w, uint16_t* packed);
void conv_bf16_unpack(const ConvWeights&, const uint16_t* packed, float* w);

// The padded copy of conv_pad_step in bfloat16. params: ConvPadBF16. args: X float32 or bfloat16, padded copy [N, D, H,
// W, C].
struct ConvPadBF16 {
  ConvPad pad;
  const GemmBF16* kernel;
  decltype(GemmF32::interleave) interleave;
  bool x_bf16;
};
Status conv_pad_bf16_step(const void* params, void* const* args, int part, int parts);

}  // namespace fi
