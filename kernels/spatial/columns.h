// SPDX-License-Identifier: Apache-2.0
// Col2Im, DeformConv and LRN in plain C++, float32, [N, C, spatial...].
#pragma once
#include <cstddef>

#include "csrc/base/step.h"
#include "kernels/conv/geometry.h"

namespace fi {

// Y[n, c, i] = sum over taps t and blocks o with o * stride - pad + t * dilation = i  of  X[n, c, t, o].
struct Col2Im {
  Geometry g;  // in: the image, out: the blocks
  int64_t batch = 0, channels = 0;
};
// args: X [N, C * taps, blocks], Y [N, C, image...].
Status col2im_step(const void* params, void* const* args, int part, int parts);

// A convolution whose taps are moved by `offset` (interpolated bilinearly, 0 outside) and weighted by `mask`.
struct DeformConv {
  Geometry g;  // of the last two axes
  int64_t batch = 0, channels = 0, out_channels = 0, groups = 1, offset_groups = 1;
};
size_t deform_conv_scratch(const DeformConv&, int parts);  // bytes
// args: X, W [O, I / groups, kh, kw], offset [N, offset groups * kh * kw * 2, oh, ow], bias or null, mask or null, Y,
// scratch.
Status deform_conv_step(const void* params, void* const* args, int part, int parts);

// Y = X / (bias + alpha / size * sum of X² over `size` channels around)^beta
struct LocalNorm {
  int64_t batch = 0, channels = 0, pixels = 0, size = 1;
  float alpha = 1e-4f, beta = 0.75f, bias = 1;
};
// args: X, Y.
Status local_norm_step(const void* params, void* const* args, int part, int parts);

}  // namespace fi
