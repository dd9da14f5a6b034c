// SPDX-License-Identifier: Apache-2.0
#include "kernels/depthwise/depthwise.h"

namespace fi {

#define FI_KERNEL(isa, symbol, kw, sw)                \
  namespace isa {                                     \
  Status symbol(const void*, void* const*, int, int); \
  }
#include "kernels/depthwise/kernels.inc"
#include "kernels/depthwise/kernels_bf16.inc"
#undef FI_KERNEL

namespace {

// The first row that the instruction set has and that fits the window; the last fits all.
const DepthwiseKernel& choose(const DepthwiseKernel* rows, Isa isa, const DepthwiseF32& p) {
  const Geometry& g = p.g;
  // A kernel of fixed width keeps pointers to at most 7 kernel rows.
  const bool fixed = g.dilation[2] == 1 && g.kernel[0] * g.kernel[1] <= 7;
  const DepthwiseKernel* row = rows;
  while (row->isa > isa || (row->kw != 0 && !(fixed && row->kw == g.kernel[2] && row->sw == g.stride[2]))) ++row;
  return *row;
}

#define FI_KERNEL(isa, symbol, kw, sw) {#symbol "_" #isa, Isa::isa, kw, sw, &isa::symbol},
const DepthwiseKernel kF32[] = {
#include "kernels/depthwise/kernels.inc"
};
const DepthwiseKernel kBF16[] = {
#include "kernels/depthwise/kernels_bf16.inc"
};
#undef FI_KERNEL

}  // namespace

const DepthwiseKernel& depthwise_f32(Isa isa, const DepthwiseF32& p) { return choose(kF32, isa, p); }
const DepthwiseKernel& depthwise_bf16(Isa isa, const DepthwiseF32& p) { return choose(kBF16, isa, p); }

double cost_of(const DepthwiseF32& p) {
  return static_cast<double>(p.batch * p.g.out_pixels()) * static_cast<double>(p.channels * (p.g.taps() + 4)) / 16;
}

void depthwise_pack(const float* w, int64_t channels, int64_t taps, float* packed) {
  for (int64_t t = 0; t < taps; ++t)
    for (int64_t c = 0; c < channels; ++c) packed[t * channels + c] = w[c * taps + t];
}

void depthwise_unpack(const float* packed, int64_t channels, int64_t taps, float* w) {
  for (int64_t t = 0; t < taps; ++t)
    for (int64_t c = 0; c < channels; ++c) w[c * taps + t] = packed[t * channels + c];
}

}  // namespace fi
