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

// Appends the step y_j = program(x...). Numbers may be float32, float16, bfloat16, (u)int2 to (u)int16 and, as an
// input, int32: they are computed in float32 and stored rounded to even and saturated. Bools where the program needs
// them. Otherwise the node is not native.
void add_pointwise(PlanContext& ctx, const TileProgramBuilder& program, std::span<const PointwiseArg> inputs,
                   std::span<const PointwiseArg> outputs);

// The whole node: program input k is node input which[k]; output j is node output j, its shape their broadcast, its
// type bool or `type`. bytes: inputs may be of 8 bits too.
void plan_pointwise(PlanContext& ctx, const Node& node, const TileProgramBuilder& program, std::span<const int> which,
                    DType type, bool bytes = false);

// y = x through float32; types as add_pointwise takes them.
void add_number_cast(PlanContext& ctx, const PointwiseArg& x, const PointwiseArg& y);

// An input as float32: itself, or a converted copy in scratch. Not native for other types.
Operand float_input(PlanContext& ctx, int i);

// An output of type float32, float16 or bfloat16 that is computed in float32: write to `data`, then call finish().
struct FloatOutput {
  Operand data, real;
  Desc desc;
  void finish(PlanContext& ctx) const;
};
// over: an input of the same shape whose memory may be taken over, or -1.
FloatOutput float_output(PlanContext& ctx, int out, DType dtype, const Shape& shape, int over = -1);

}  // namespace fi
