// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "csrc/ops/op.h"
#include "kernels/move/index.h"

namespace fi {

// The element type of an index operand; anything but int32 and int64 is the caller's error.
inline IndexType index_type(const PlanContext& ctx, int i) {
  const DType t = ctx.dtype(i);
  check(t == DType::s32 || t == DType::s64, "indices (input ", i, ") are ", ctx.input(i), ", needed: int32 or int64");
  return t == DType::s32 ? IndexType::s32 : IndexType::s64;
}

}  // namespace fi
