// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "csrc/ops/op.h"
#include "kernels/reduce/reduce.h"

namespace fi {

// Plans y = finish(fold of x over the axes that are marked); type float32 or one of typed_reduce.h.
void add_reduction(PlanContext& ctx, Fold fold, Finish finish, const Shape& shape, const bool* reduced, Operand x,
                   Operand y, DType type);

}  // namespace fi
