// SPDX-License-Identifier: Apache-2.0
// What the integer operators share: their scales and zero points in the kernels' form, and how bytes come out.
#pragma once
#include <mutex>
#include <vector>

#include "csrc/ops/op.h"
#include "kernels/gemm/quantize.h"

namespace fi {

// Which inputs mean what; -1: the operator has none. C is what a residual R is added to (Requantize::inner).
struct QuantizedInputs {
  int a = 0, b = 1, a_scale = -1, b_scale = -1, a_zero = -1, b_zero = -1, y_scale = -1, y_zero = -1, int_bias = -1;
  int residual = -1, r_scale = -1, r_zero = -1, c_scale = -1, c_zero = -1;
};
// The form of QLinearConv and QLinearMatMul, continued by fastinfer's QConv and QMatMul.
constexpr QuantizedInputs kQLinear{0, 3, 1, 4, 2, 5, 6, 7, 8};
constexpr QuantizedInputs kFused{0, 3, 1, 4, 2, 5, 6, 7, 8, 9, 10, 11, 12, 13};

inline bool is_8_bit(DType t) { return t == DType::u8 || t == DType::s8; }
inline bool given(const PlanContext& ctx, int i) { return i >= 0 && ctx.has_input(i); }
inline Operand in_or_null(PlanContext& ctx, int i) { return given(ctx, i) ? ctx.in(i) : Operand{0, 0}; }

inline DType dtype_of(QuantizedOutput o) {
  return o == QuantizedOutput::f32  ? DType::f32
         : o == QuantizedOutput::u8 ? DType::u8
         : o == QuantizedOutput::s8 ? DType::s8
                                    : DType::s32;
}
// Without a y_scale `otherwise`; else bytes of the type of y's zero point, or A's type.
QuantizedOutput quantized_output(PlanContext&, const QuantizedInputs&, QuantizedOutput otherwise);
// Zero points, ranges (attributes low, high, c_low, c_high) and residual of a node whose Y are bytes. Checks that R has
// Y's shape.
Requantize read_requantize(PlanContext&, const Node&, const QuantizedInputs&, QuantizedOutput, const Shape& y);
// True unless B's zero point is known to be 0 in the kernel's form: it costs a sum over each row of A.
bool b_has_zero(PlanContext&, const QuantizedInputs&);

// DynamicQuantizeLinear of n floats: bytes, scale and zero point.
void add_dynamic_quantization(PlanContext&, Operand x, int64_t n, Operand y, Operand scale, Operand zero);

struct QuantizedScales {
  Operand a_zero, b_zero, row, column;
};
// quantization_step, once per program where everything is constant, else as a step of the plan.
class Quantization {
 public:
  Quantization(BuildContext&, const QuantizedInputs&);
  QuantizedScales plan(PlanContext&, const QuantizationStep&) const;
  // The same with scale and zero point of A from elsewhere.
  QuantizedScales plan(PlanContext&, const QuantizationStep&, Operand a_scale, Operand a_zero) const;

 private:
  QuantizedInputs i_;
  bool constant_ = true;
  mutable std::once_flag once_;
  mutable std::vector<int32_t> values_;  // za, zb, row scales, column scales
};

}  // namespace fi
