// SPDX-License-Identifier: Apache-2.0
// Binding of kernels/move/strided_copy.h.
#pragma once
#include "csrc/ops/op.h"
#include "kernels/move/transpose.h"

namespace fi {

// Finishes the copy and appends its step, if it moves anything.
inline void add_copy(PlanContext& ctx, StridedCopy copy, Operand x, Operand y) {
  copy.finish();
  if (copy.bytes() == 0) return;
  const CopyKernel kernel = select_copy(ctx.isa(), copy);
  ctx.step(kernel.name, kernel.run, copy, {x, y}, ctx.parts_for(cost_of(copy)));
}

// [outer] rows of `bytes`, the rows `from` apart in x and `to` apart in y.
inline void add_row_copy(PlanContext& ctx, int64_t outer, int64_t bytes, int64_t from, int64_t to, Operand x,
                         Operand y) {
  StridedCopy copy(1);
  copy.axis(outer, from, to);
  copy.axis(bytes, 1, 1);
  add_copy(ctx, copy, x, y);
}

}  // namespace fi
