// SPDX-License-Identifier: Apache-2.0
#include "csrc/ops/stack.h"

#include <algorithm>

namespace fi {

Tensor slice_at(const Tensor& x, int axis, int64_t at) {
  Shape out = x.desc.shape;
  const int64_t outer = out.elements(0, axis), extent = out[axis];
  out.erase(axis);
  const int64_t row = out.elements(axis, out.rank()) * static_cast<int64_t>(size_of(x.desc.dtype));
  if (axis == 0) {
    Tensor view = x;
    view.desc.shape = out;
    view.data = static_cast<char*>(x.data) + at * row;
    return view;
  }
  Tensor y = allocate_tensor(x.desc.dtype, out);
  for (int64_t o = 0; o < outer; ++o)
    std::memcpy(static_cast<char*>(y.data) + o * row, x.as<char>() + (o * extent + at) * row, row);
  return y;
}

Tensor stack(const std::vector<Tensor>& parts, int64_t axis, bool reversed, const Desc& declared) {
  const Desc& first = parts.empty() ? declared : parts[0].desc;
  check(size_of(first.dtype) > 0, "a scan output is ",
        parts.empty() ? "empty and its type is not declared" : "not a tensor");
  const int64_t n = static_cast<int64_t>(parts.size());
  Shape out = first.shape;
  const int a = normalize_axis(axis, out.rank() + 1);
  out.insert(a, n);
  Tensor y = allocate_tensor(first.dtype, out);
  const int64_t outer = first.shape.elements(0, a),
                row = static_cast<int64_t>(first.bytes()) / std::max<int64_t>(outer, 1);
  for (int64_t i = 0; i < n; ++i) {
    const Tensor& part = parts[reversed ? n - 1 - i : i];
    check(part.desc.dtype == first.dtype && part.desc.shape == first.shape, "a scan output is ", part.desc,
          " in one iteration and ", first, " in another");
    for (int64_t o = 0; o < outer; ++o)
      std::memcpy(static_cast<char*>(y.data) + (o * n + i) * row, part.as<char>() + o * row, row);
  }
  return y;
}

}  // namespace fi
