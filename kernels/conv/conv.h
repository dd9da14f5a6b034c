// SPDX-License-Identifier: Apache-2.0
// Convolution, channels last, as indirect products on the GEMM microkernel:
//
//   Y[n, o, m] = epilogue( sum over taps t, channels k of  X[n, o * stride - pad + t * dilation, k] * W[t, k, m] )
//   Y[n, o, m] = epilogue( sum over taps t, channels k of  X[n, i, k] * W[t, k, m],  o = i * stride - pad + t *
//   dilation )
//
// (the second is the transposed convolution). X outside the image is 0. For a block of output pixels a table holds, per
// tap, where each pixel's input channels start (a line of zeros outside the image); the microkernel does the rest, so
// no im2col matrix is ever written. Channels fall in `groups` equal groups; group j of Y sees group j of X only.
#pragma once
#include "kernels/conv/geometry.h"
#include "kernels/gemm/gemm.h"

namespace fi {

struct ConvF32 {
  Geometry g;  // transposed: `in` and `out` are those of the transposed convolution itself, X and Y
  int64_t batch = 0, groups = 1;
  int64_t in_channels = 0, out_channels = 0;  // of all groups
  bool transposed = false;
  // Floats from one input pixel to the next, and contiguous floats of one tap. Both are in_channels and in_channels /
  // groups unless X is a padded copy (conv_pad_step), where one tap is a whole kernel row.
  int64_t pixel_floats = 0, k = 0;
  int64_t y_pixel = 0, residual_pixel = 0;  // floats from one output pixel to the next; 0: out_channels
  bool split_channels = false;  // parts divide the output channels (small maps with large weights), else the pixels
  int64_t block = 0;            // rows of the table
  const GemmF32* kernel = nullptr;
  Epilogue epilogue;
};

// Fills block and split_channels, and returns what the work is worth to PlanContext::parts_for.
double conv_f32_prepare(ConvF32&);
size_t conv_f32_scratch(const ConvF32&, int parts);  // bytes
// args: X, W packed, bias [out_channels] or null, residual (as Y) or null, Y, scratch. Y must not be the residual.
Status conv_f32_step(const void* params, void* const* args, int part, int parts);

// Weights: per group, panels of the GEMM family with taps in the order that conv_tap_order gives.
// W is [O, I / groups, taps]; transposed: [I, O / groups, taps].
struct ConvWeights {
  int64_t groups, in_per_group, out_per_group, kernel[3];
  bool transposed;
  int64_t stride[3], dilation[3];  // looked at only if transposed
  int nr;
};
int64_t conv_packed_floats(const ConvWeights&);
void conv_f32_pack(const GemmF32&, const ConvWeights&, const float* w, float* packed);
void conv_f32_unpack(const ConvWeights&, const float* packed, float* w);

// A kernel row of a convolution with few channels is one run of floats in a zero-padded copy of the image.
struct ConvPad {
  Geometry g;
  int64_t batch, channels;
  int64_t from_channel, from_pixel;  // strides of X in floats: NHWC 1, C; NCHW H·W, 1
  int64_t width() const { return g.in[2] + g.pad[2] + g.pad_end[2]; }
  int64_t height() const { return g.in[1] + g.pad[1] + g.pad_end[1]; }
  int64_t depth() const { return g.in[0] + g.pad[0] + g.pad_end[0]; }
  int64_t floats() const { return batch * depth() * height() * width() * channels; }
};
// params: ConvPad. args: X, padded copy [N, D, H, W, C].
Status conv_pad_step(const void* params, void* const* args, int part, int parts);

}  // namespace fi
