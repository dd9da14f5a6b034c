// SPDX-License-Identifier: Apache-2.0
// Reading by index. args: x, indices, y. An index outside its axis is reported before x is read there.
#pragma once
#include "csrc/base/shape.h"
#include "csrc/base/step.h"
#include "kernels/move/index.h"

namespace fi {

// y[o, n] = x[o, index[n]]: rows of `row` bytes.
struct Gather {
  int64_t outer, count, extent, row;
  IndexType index;
};
Status gather(const void* params, void* const* args, int part, int parts);

// y[i] = x[i with i_axis replaced by index[i]]: elements of `unit` bytes, over the shape of the indices.
struct GatherElements {
  int32_t rank, axis;  // rank >= 1
  int64_t unit, extent;
  IndexType index;
  int64_t shape[kMaxRank];   // of index and y
  int64_t stride[kMaxRank];  // of x, in bytes
};
Status gather_elements(const void* params, void* const* args, int part, int parts);

// y[b, n] = x[b][index[b, n, 0], ..., index[b, n, depth-1]]: rows of `row` bytes.
struct GatherND {
  int32_t depth;
  IndexType index;
  int64_t batches, count, batch_bytes, row;
  int64_t extent[kMaxRank], stride[kMaxRank];  // of the indexed axes; strides in bytes
};
Status gather_nd(const void* params, void* const* args, int part, int parts);

}  // namespace fi
