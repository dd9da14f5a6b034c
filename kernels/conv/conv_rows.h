// SPDX-License-Identifier: Apache-2.0
// Two-dimensional convolution, channels last, where a row of output pixels is a product whose rows of A lie at one
// distance (GemmF32::run_rows). No table of row pointers, and the bits are those of conv_f32_step. Two forms:
//
//   stem    few input channels: each part pads the input rows of a band of output rows into a slab that stays in L2,
//           from planes (NCHW) or pixels (NHWC); a kernel row is then one run of kernel width x channels floats.
//   narrow  few output channels: reads X itself; pixels that see the left or right padding are computed one by one, and
//           kernel rows in the padding above and below are left out.
//   blocks  transposed, strides equal to the kernel: every input pixel makes a block of output pixels of its own. All
//           taps of an input row follow each other, so that it is read once (class by class it came from L3 each time).
#pragma once
#include "kernels/conv/geometry.h"
#include "kernels/gemm/gemm.h"

namespace fi {

struct ConvRows {
  Geometry g;
  bool stem = false, blocks = false;
  int64_t batch = 0, in_channels = 0, out_channels = 0;
  int64_t x_channel = 1, x_pixel = 0;  // floats from one input channel, pixel to the next; images are dense
  int64_t y_pixel = 0, residual_pixel = 0;
  const GemmF32* kernel = nullptr;
  Epilogue epilogue;
  int64_t band = 0, pitch = 0;  // stem: output rows of a slab; floats of a slab's row
};

// Whether the forms apply: one group, weights packed as ConvWeights says, no negative padding for the stem.
bool conv_rows_stem(const Geometry&, int64_t in_channels, int64_t out_channels);
bool conv_rows_narrow(const Geometry&, int64_t in_channels, int64_t out_channels, const GemmF32&);
bool conv_rows_blocks(const Geometry&, int64_t in_channels, int64_t out_channels);  // g as in ConvF32
// Fills band and pitch, and returns what the work is worth to PlanContext::parts_for.
double conv_rows_prepare(ConvRows&);
size_t conv_rows_scratch(const ConvRows&, int parts);  // bytes
// args: X, W packed, bias [out_channels] or null, residual (as Y) or null, Y, scratch.
Status conv_rows_step(const void* params, void* const* args, int part, int parts);

}  // namespace fi
