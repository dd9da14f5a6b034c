// SPDX-License-Identifier: Apache-2.0
// The k first elements of every line in the order (value, then lower index), best first; `largest` reverses the values'
// order, NaN counts as the largest value. Lines run along the middle axis of x[outer, n, inner].
// args: x, values, indices (int64), scratch of parts · topk_room(p) entries.
#pragma once
#include "csrc/base/dtype.h"
#include "csrc/base/step.h"

namespace fi {

struct TopK {
  DType dtype;
  bool largest;
  int64_t outer, n, inner, k;
};
struct TopKEntry {
  uint64_t key;  // larger is better
  int64_t index;
};
// From a quarter of the line on, selecting in a copy of it beats a heap of k.
inline int64_t topk_room(const TopK& p) { return p.k >= p.n / 4 ? p.n : p.k; }
Status topk(const void* params, void* const* args, int part, int parts);

}  // namespace fi
