// SPDX-License-Identifier: Apache-2.0
// Plans a program of kernels/pointwise over inputs of a node.
#pragma once
#include <span>

#include "csrc/ops/op.h"
#include "kernels/pointwise/program.h"

namespace fi {

// An operand of a program, not necessarily an input of the node.
struct PointwiseArg {
  Operand data;
  Desc desc;
};

// Appends the step y_j = program(x...). Types: float32, float16, bfloat16 (computed in float32), bool where the program
// needs it; otherwise the node is not native.
void add_pointwise(PlanContext& ctx, const TileProgramBuilder& program, std::span<const PointwiseArg> inputs,
                   std::span<const PointwiseArg> outputs);

// The whole node: program input k is node input which[k]; output j is node output j, its shape their broadcast, its
// type bool or `type`.
void plan_pointwise(PlanContext& ctx, const Node& node, const TileProgramBuilder& program, std::span<const int> which,
                    DType type);

}  // namespace fi
