// SPDX-License-Identifier: Apache-2.0
// Convolution on channels-last data through the batch-reduce GEMM, without im2col:
//   Y[p, o] = epilogue( sum over taps t, channels c of  X[pixel(p, t), c] * W[o, c, t] )
// Every output pixel p gives the microkernel one row pointer per tap; a tap in the padding points at a line of zeros
// (the indirect convolution of Dukhan 2019). Taps ascend in (depth, height, width) order, channels within a tap.
#pragma once
#include "kernels/conv/geometry.h"
#include "kernels/gemm/gemm.h"

namespace fi {

struct ConvStep {
  const GemmF32* kernel = nullptr;
  Geometry window;  // of the data as the step sees it: already padded if `padded`
  int64_t batch = 0, channels = 0, out_channels = 0, groups = 1;
  bool merged_width = false;  // a row of taps is kernel width * channels contiguous floats (no padding, no dilation)
  bool split_columns = false;  // parts divide the output channels instead of the pixels
  Epilogue epilogue;
  int64_t block = 0;  // output pixels per pointer table, filled by conv_prepare
};
// Fills block and split_columns; returns what the work is worth to PlanContext::parts_for.
double conv_prepare(ConvStep&);
size_t conv_scratch(const ConvStep&, int parts);  // bytes
// args: X [N, pixels, C], W packed, bias or null, R or null, Y [N, pixels, O], scratch.
Status conv_step(const void* params, void* const* args, int part, int parts);

// Panels of one group; the groups lie one after the other.
GemmPanels conv_panels(const ConvStep&);
// From W [O, C/groups, taps].
void conv_pack(const GemmF32&, int64_t groups, int64_t out_channels, int64_t group_channels, int64_t taps, const float* w,
               float* packed);
void conv_unpack(int nr, int64_t groups, int64_t out_channels, int64_t group_channels, int64_t taps, const float* packed,
                 float* w);
int64_t conv_packed_floats(int64_t groups, int64_t out_channels, int64_t group_channels, int64_t taps);

// Copies images [pixels, C] into the middle of zeroed larger ones. args: X, Y.
struct PadImageStep {
  Geometry window;
  int64_t batch, channels;
};
Status pad_image_step(const void* params, void* const* args, int part, int parts);

}  // namespace fi
