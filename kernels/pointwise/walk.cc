// SPDX-License-Identifier: Apache-2.0
#include "kernels/pointwise/walk.h"

namespace fi {

bool Walk::dense(int i) const {
  int64_t step = 1;
  for (int d = rank - 1; d >= 0; --d) {
    if (stride[i][d] != step) return false;
    step *= extent[d];
  }
  return true;
}

bool Walk::scalar(int i) const {
  for (int d = 0; d < rank; ++d)
    if (stride[i][d] != 0) return false;
  return true;
}

int64_t Walk::elements() const {
  int64_t n = 1;
  for (int d = 0; d < rank; ++d) n *= extent[d];
  return n;
}

namespace {

// Whether the axis with these strides continues the walk's last axis for every input.
bool continues(const Walk& w, int64_t extent, const int64_t* stride) {
  for (int i = 0; i < w.inputs; ++i)
    if (w.stride[i][w.rank - 1] != extent * stride[i]) return false;
  return true;
}

}  // namespace

Walk walk_over(const Shape& out, std::span<const Shape> inputs) {
  check_model(inputs.size() <= 16, "broadcast over ", inputs.size(), " inputs; at most 16 are supported");
  Walk w;
  w.inputs = static_cast<int>(inputs.size());
  Shape dense[16];
  for (int i = 0; i < w.inputs; ++i) dense[i] = strides_of(inputs[i]);
  for (int d = 0; d < out.rank(); ++d) {
    if (out[d] == 1) continue;
    int64_t stride[16];
    for (int i = 0; i < w.inputs; ++i) {
      const int at = d - (out.rank() - inputs[i].rank());
      stride[i] = at >= 0 && inputs[i][at] != 1 ? dense[i][at] : 0;
    }
    const bool merge = w.rank > 0 && continues(w, out[d], stride);
    const int axis = merge ? w.rank - 1 : w.rank++;
    w.extent[axis] = (merge ? w.extent[axis] : 1) * out[d];
    for (int i = 0; i < w.inputs; ++i) w.stride[i][axis] = stride[i];
  }
  if (w.rank == 0) {
    w.rank = 1;
    w.extent[0] = 1;
    for (int i = 0; i < w.inputs; ++i) w.stride[i][0] = 0;
  }
  return w;
}

}  // namespace fi
