// SPDX-License-Identifier: Apache-2.0
#include "csrc/ops/requantize.h"

#include <algorithm>

namespace fi {
namespace {

template <class T>
T number(PlanContext& ctx, int i) {
  return *static_cast<const T*>(ctx.require(i));
}

int32_t zero_point(PlanContext& ctx, int i) {
  if (!given(ctx, i)) return 0;
  if (ctx.input(i).elements() != 1) ctx.not_native("an output zero point per row");
  return ctx.dtype(i) == DType::u8 ? number<uint8_t>(ctx, i) : number<int8_t>(ctx, i);
}

float scale(PlanContext& ctx, int i) {
  check(given(ctx, i) && ctx.dtype(i) == DType::f32 && ctx.input(i).elements() == 1, "a residual needs float32 scales");
  return number<float>(ctx, i);
}

// What a step reads of a constant input.
const void* known(PlanContext& ctx, int i) { return given(ctx, i) ? ctx.known(i) : nullptr; }

}  // namespace

QuantizedOutput quantized_output(PlanContext& ctx, const QuantizedInputs& i, QuantizedOutput otherwise) {
  if (!given(ctx, i.y_scale)) return otherwise;
  const DType t = given(ctx, i.y_zero) ? ctx.dtype(i.y_zero) : ctx.dtype(i.a);
  if (!is_8_bit(t)) ctx.not_native(words("an output of type ", name_of(t)));
  return t == DType::u8 ? QuantizedOutput::u8 : QuantizedOutput::s8;
}

Requantize read_requantize(PlanContext& ctx, const Node& node, const QuantizedInputs& i, QuantizedOutput o,
                           const Shape& y) {
  const Attributes& a = node.attributes;
  Requantize q = requantize(o, zero_point(ctx, i.y_zero));
  const auto bound = [&](const char* name, int32_t otherwise) {
    return static_cast<int32_t>(std::clamp<int64_t>(a.i(name, otherwise), q.lo, q.hi));
  };
  const int32_t lo = bound("low", q.lo), hi = bound("high", q.hi);
  if (given(ctx, i.residual)) {
    const DType t = ctx.dtype(i.residual);
    check(is_8_bit(t) && ctx.shape(i.residual) == y, "the residual is ", ctx.input(i.residual), ", needed: bytes ", y);
    check(given(ctx, i.r_zero) && ctx.dtype(i.r_zero) == t, "the residual's zero point is of another type");
    const float y_scale = scale(ctx, i.y_scale);
    q.signed_residual = t == DType::s8;
    q.r_zero = zero_point(ctx, i.r_zero);
    q.r_factor = scale(ctx, i.r_scale) / y_scale;
    q.inner = given(ctx, i.c_scale);
    if (q.inner) {
      check(given(ctx, i.c_zero) && is_8_bit(ctx.dtype(i.c_zero)), "C has no zero point of 8 bits");
      const bool is_signed = ctx.dtype(i.c_zero) == DType::s8;
      q.c_zero = zero_point(ctx, i.c_zero);
      q.c_lo = static_cast<int32_t>(std::clamp<int64_t>(a.i("c_low", -128), is_signed ? -128 : 0, 255));
      q.c_hi = static_cast<int32_t>(std::clamp<int64_t>(a.i("c_high", 255), -128, is_signed ? 127 : 255));
      q.c_factor = scale(ctx, i.c_scale) / y_scale;
    }
  }
  q.lo = lo;
  q.hi = hi;
  return q;
}

bool b_has_zero(PlanContext& ctx, const QuantizedInputs& i) {
  const bool is_signed = ctx.dtype(i.b) == DType::s8;
  if (!given(ctx, i.b_zero)) return !is_signed;
  const auto* zero = static_cast<const uint8_t*>(ctx.known(i.b_zero));
  return !zero || !std::all_of(zero, zero + ctx.input(i.b_zero).elements(),
                               [&](uint8_t v) { return v == (is_signed ? 0 : 128); });
}

void add_dynamic_quantization(PlanContext& ctx, Operand x, int64_t n, Operand y, Operand scale, Operand zero) {
  const int parts = ctx.parts_for(static_cast<double>(n) / 8);
  const DynamicQuantizeKernel& kernel = dynamic_quantize(ctx.isa());
  const Operand ranges = ctx.scratch(static_cast<size_t>(parts) * 2 * sizeof(float));
  ctx.step("range", kernel.range, RangeStep{n}, {x, ranges}, parts);
  ctx.step("dynamic_quantize", kernel.quantize, DynamicQuantizeStep{n, parts}, {x, ranges, y, scale, zero}, parts);
}

Quantization::Quantization(BuildContext& ctx, const QuantizedInputs& inputs) : i_(inputs) {
  constant_ = ctx.constant_desc(i_.b) != nullptr;  // else the number of columns may differ between plans
  for (int i : {i_.a_scale, i_.a_zero, i_.b_scale, i_.b_zero, i_.y_scale, i_.c_scale})
    if (i >= 0 && ctx.has_input(i)) constant_ &= ctx.constant(i) != nullptr;
}

QuantizedScales Quantization::plan(PlanContext& ctx, const QuantizationStep& q) const {
  const int to = given(ctx, i_.c_scale) ? i_.c_scale : i_.y_scale;
  if (!constant_) return plan(ctx, q, in_or_null(ctx, i_.a_scale), in_or_null(ctx, i_.a_zero));
  std::call_once(once_, [&] {
    values_.resize(static_cast<size_t>(2 * (q.rows + q.n)));
    int32_t* at = values_.data();
    void* const args[] = {const_cast<void*>(known(ctx, i_.a_zero)),
                          const_cast<void*>(known(ctx, i_.b_zero)),
                          const_cast<void*>(known(ctx, i_.a_scale)),
                          const_cast<void*>(known(ctx, i_.b_scale)),
                          const_cast<void*>(known(ctx, to)),
                          at,
                          at + q.rows,
                          at + q.rows + q.n,
                          at + 2 * q.rows + q.n};
    quantization_step(&q, args, 0, 1);
  });
  const Operand base = ctx.address(values_.data());
  return {base, base.plus(q.rows * 4), base.plus((q.rows + q.n) * 4), base.plus((2 * q.rows + q.n) * 4)};
}

QuantizedScales Quantization::plan(PlanContext& ctx, const QuantizationStep& q, Operand a_scale, Operand a_zero) const {
  const Operand base = ctx.scratch(static_cast<size_t>(q.rows + q.n) * 8);
  const QuantizedScales s{base, base.plus(q.rows * 4), base.plus((q.rows + q.n) * 4),
                          base.plus((2 * q.rows + q.n) * 4)};
  const int to = given(ctx, i_.c_scale) ? i_.c_scale : i_.y_scale;
  ctx.step("quantization", quantization_step, q,
           {a_zero, in_or_null(ctx, i_.b_zero), a_scale, in_or_null(ctx, i_.b_scale), in_or_null(ctx, to), s.a_zero,
            s.b_zero, s.row, s.column});
  return s;
}

}  // namespace fi
