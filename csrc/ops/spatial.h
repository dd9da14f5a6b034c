// SPDX-License-Identifier: Apache-2.0
// What convolution, pooling and resize share: windows over up to three spatial axes, and the two data layouts.
#pragma once
#include <array>

#include "csrc/ops/op.h"
#include "kernels/conv/geometry.h"

namespace fi {

// A [N, C, spatial...] or (channels last) [N, spatial..., C] tensor.
struct Image {
  int64_t batch = 0, channels = 0;
  int spatial = 0;                          // number of spatial axes, 1 to 3
  std::array<int64_t, 3> size = {1, 1, 1};  // depth, height, width; missing axes lead with 1
  bool channels_last = false;

  int64_t pixels() const { return size[0] * size[1] * size[2]; }
  Shape shape() const;  // back to the layout's own order
};
// Throws InputError unless the rank is 3 to 5.
Image image_of(const Shape&, bool channels_last);

// kernel_shape, strides, dilations, pads, auto_pad, ceil_mode of a convolution or pooling node.
struct WindowAttributes {
  std::vector<int64_t> kernel, strides, dilations, pads;  // empty: the default
  std::string auto_pad;
  bool ceil_mode = false;
  explicit WindowAttributes(const Node&);
};

// The window on a concrete image. kernel: extents as the weights say (convolution), or empty for the attribute.
// Output extents are computed, pads settled; ModelError for a wrong count or value, InputError if the window does not
// fit.
Geometry geometry_of(const WindowAttributes&, const Image&, const std::vector<int64_t>& kernel);

// The output image of a window.
inline Image output_image(const Geometry& g, const Image& in, int64_t channels) {
  Image out = in;
  out.channels = channels;
  out.size = {g.out[0], g.out[1], g.out[2]};
  return out;
}

}  // namespace fi
