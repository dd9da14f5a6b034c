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
  Requantize q;
  int64_t merged_width = 0;  // taps of a kernel row that merge_taps joined
  int64_t block = 0;         // filled by conv_u8s8_prepare
  bool by_panels = false;    // parts share out the output channels, not the pixels; filled too
  const GemmU8S8* kernel = nullptr;
};
double conv_u8s8_prepare(ConvU8S8&);  // returns what the work is worth to PlanContext::parts_for
size_t conv_u8s8_scratch(const ConvU8S8&, int parts);
// args: X, W packed, zx s32 [1], zw s32 [out_channels] or null, bias s32 or null, scale [1], column scale
// [out_channels], Y, residual or null, scratch. Zero points in the forms of gemm_u8s8.h.
Status conv_u8s8_step(const void* params, void* const* args, int part, int parts);

// Few channels (a stem's 3): the taps of a kernel row become one of kernel[2] * C channels, on an image that is padded
// with zx by a step before. `merge_taps` makes the convolution that is left of it.
bool can_merge_taps(const Geometry&, int64_t groups, int64_t channels);
ConvU8S8 merge_taps(const ConvU8S8&);
struct PadBytes {
  Geometry g;
  int64_t batch = 0, channels = 0;
  bool flip_x = false;
};
size_t padded_bytes(const PadBytes&);
// args: X, zx s32 [1], padded X.
Status pad_bytes_step(const void* params, void* const* args, int part, int parts);

// Panels of one group; the groups follow each other. W is [O, I / groups, taps].
U8S8Panels conv_u8s8_panels(int64_t groups, int64_t out_channels, int64_t group_channels, int64_t taps, int nr);
void conv_u8s8_pack(const U8S8Panels&, int64_t groups, bool flip, const void* w, void* packed);
void conv_u8s8_unpack(const U8S8Panels&, int64_t groups, bool flip, const void* packed, void* w);
// The same for merged taps: panels of `rows` taps of (width * channels); one group.
void conv_u8s8_pack_merged(const U8S8Panels&, int64_t width, bool flip, const void* w, void* packed);
void conv_u8s8_unpack_merged(const U8S8Panels&, int64_t width, bool flip, const void* packed, void* w);

}  // namespace fi
