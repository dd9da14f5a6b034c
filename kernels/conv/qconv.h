// SPDX-License-Identifier: Apache-2.0
// Convolution of bytes, channels last, on the integer microkernel (kernels/gemm/gemm_u8s8.h), with the table of row
// pointers of conv.h:
//
//   S[n, o, m] = bias[m] + sum over taps t, channels k of (X[n, o * stride - pad + t * dilation, k] - zx) * (W[t, k, m]
//   - zw[m])
//
// X outside the image is zx. Y is S or S scaled, rounded and saturated, as QuantizedOutput says.
#pragma once
#include "kernels/conv/geometry.h"
#include "kernels/gemm/gemm_u8s8.h"

namespace fi {

struct ConvU8S8 {
  Geometry g;
  int64_t batch = 0, groups = 1, in_channels = 0, out_channels = 0;
  bool flip_x = false;  // X is signed
  QuantizedOutput output = QuantizedOutput::s32;
  float zero = 0;     // of Y
  int64_t block = 0;  // filled by conv_u8s8_prepare
  const GemmU8S8* kernel = nullptr;
};
double conv_u8s8_prepare(ConvU8S8&);  // returns what the work is worth to PlanContext::parts_for
size_t conv_u8s8_scratch(const ConvU8S8&, int parts);
// args: X, W packed, zx s32 [1], zw s32 [out_channels] or null, bias s32 or null, scale [1], column scale
// [out_channels], Y, scratch. Zero points in the forms of gemm_u8s8.h.
Status conv_u8s8_step(const void* params, void* const* args, int part, int parts);

// Panels of one group; the groups follow each other. W is [O, I / groups, taps].
U8S8Panels conv_u8s8_panels(int64_t groups, int64_t out_channels, int64_t group_channels, int64_t taps, int nr);
void conv_u8s8_pack(const U8S8Panels&, int64_t groups, bool flip, const void* w, void* packed);
void conv_u8s8_unpack(const U8S8Panels&, int64_t groups, bool flip, const void* packed, void* w);

}  // namespace fi
