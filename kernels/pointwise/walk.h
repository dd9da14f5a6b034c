// SPDX-License-Identifier: Apache-2.0
// Broadcasting made small: the fewest axes over which every input has one stride.
#pragma once
#include <span>

#include "csrc/base/shape.h"

namespace fi {

struct Walk {
  int rank = 0;              // at least 1
  int64_t extent[kMaxRank];  // outermost first; all > 0 unless empty
  int inputs = 0;
  int64_t stride[16][kMaxRank];  // of each input, in elements; 0: broadcast

  bool dense(int i) const;   // laid out as the output
  bool scalar(int i) const;  // one element
  int64_t elements() const;
};

// `out` is the numpy broadcast of `inputs` (at most 16). Axes of extent 1 vanish, axes that all inputs pass alike
// merge.
Walk walk_over(const Shape& out, std::span<const Shape> inputs);

}  // namespace fi
