// SPDX-License-Identifier: Apache-2.0
// A window that slides over a depth x height x width image; shared by convolution, depthwise and pooling kernels.
#pragma once
#include <cstdint>

namespace fi {

// Output pixel o sees input pixels o * stride - pad + k * dilation, for k in [0, kernel), on each axis.
struct Geometry {
  int64_t in[3], out[3], kernel[3], stride[3], dilation[3], pad[3], pad_end[3];

  int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }
  int64_t in_pixels() const { return in[0] * in[1] * in[2]; }
  int64_t out_pixels() const { return out[0] * out[1] * out[2]; }
};

// The taps of output position o on one axis that fall inside the image: [begin, end).
struct Taps {
  int64_t begin, end;
};
inline Taps inside(const Geometry& g, int axis, int64_t o) {
  const int64_t first = o * g.stride[axis] - g.pad[axis], d = g.dilation[axis];
  int64_t begin = first < 0 ? (-first + d - 1) / d : 0;
  int64_t end = first < g.in[axis] ? (g.in[axis] - first + d - 1) / d : 0;
  if (end > g.kernel[axis]) end = g.kernel[axis];
  if (begin > end) begin = end;
  return {begin, end};
}

}  // namespace fi
