// SPDX-License-Identifier: Apache-2.0
// What operators with the attribute precision = "bf16" share. The attribute is a permission: products may be taken of
// operands rounded to bfloat16, with float32 sums; an operator for which that has no form or no gain stays float32.
#pragma once
#include "csrc/ops/op.h"
#include "kernels/gemm/gemm_bf16.h"

namespace fi {

inline bool allows_bf16(const Node& node) { return node.attributes.s("precision", "") == "bf16"; }
// The output's type: attribute output_dtype = "bf16", else float32.
inline DType output_dtype(const Node& node) {
  const std::string t = node.attributes.s("output_dtype", "");
  check_model(t.empty() || t == "bf16", "output_dtype '", t, "' is not 'bf16'");
  return t.empty() ? DType::f32 : DType::bf16;
}
inline bool float_or_bf16(DType t) { return t == DType::f32 || t == DType::bf16; }

// x in bfloat16: itself if it is, else rounded into scratch.
inline Operand rounded(PlanContext& ctx, DType t, Operand x, int64_t n) {
  if (t == DType::bf16 || n == 0) return x;
  const Operand y = ctx.scratch(static_cast<size_t>(n) * 2);
  ctx.step("round_bf16", round_bf16_step, RoundBF16{&gemm_bf16(ctx.isa()), n}, {x, y},
           ctx.parts_for(static_cast<double>(n) / 8));
  return y;
}

}  // namespace fi
