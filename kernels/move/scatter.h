// SPDX-License-Identifier: Apache-2.0
// Writing by index, in the order of the indices: with duplicates the last one wins, reductions add up in that order, so
// one thread does it all. args: data, indices, updates, y. y starts as a copy of data unless it is the same memory.
#pragma once
#include "csrc/base/dtype.h"
#include "csrc/base/shape.h"
#include "csrc/base/step.h"
#include "kernels/move/index.h"

namespace fi {

enum class Reduction : int32_t { none, add, mul, min, max };
// Reductions exist for the integers, f32 and f64; plain writing for every type.
bool can_reduce(DType, Reduction);

// y[i with i_axis replaced by index[i]] ⊕= updates[i], over the shape of the indices.
struct ScatterElements {
  int32_t rank, axis;  // rank >= 1
  DType dtype;
  Reduction reduction;
  IndexType index;
  int64_t bytes, extent;     // of data
  int64_t shape[kMaxRank];   // of index and updates
  int64_t stride[kMaxRank];  // of y, in elements
};
Status scatter_elements(const void* params, void* const* args, int part, int parts);

// y[index[n, 0], ..., index[n, depth-1]] ⊕= updates[n]: rows of `row` elements.
struct ScatterND {
  int32_t depth;
  DType dtype;
  Reduction reduction;
  IndexType index;
  int64_t bytes, count, row;
  int64_t extent[kMaxRank], stride[kMaxRank];  // of the indexed axes; strides in elements
};
Status scatter_nd(const void* params, void* const* args, int part, int parts);

// y[b, p, (first[b] + s) mod extent] = updates[b, p, s]: rows of `row` bytes; without `circular` positions must fit.
// args: cache, updates, first (null: 0), y.
struct ScatterRows {
  bool circular;
  IndexType index;
  int64_t bytes, batches, planes, count, extent, row;
};
Status scatter_rows(const void* params, void* const* args, int part, int parts);

}  // namespace fi
