// SPDX-License-Identifier: Apache-2.0
// Integer matrix products: MatMulInteger, QLinearMatMul and com.microsoft's relatives, on kernels/gemm/gemm_u8s8.h.
#include <algorithm>
#include <cstdio>

#include "csrc/ops/copy_step.h"
#include "csrc/ops/matmul_shape.h"
#include "kernels/gemm/gemm_u8s8.h"
#include "kernels/gemm/quantize.h"
#include "kernels/move/transpose.h"

namespace fi {
namespace {

// Which inputs mean what (-1: the operator has none), and what comes out.
struct QuantizedForm {
  int a = 0, b = 1, a_scale = -1, b_scale = -1, a_zero = -1, b_zero = -1, y_scale = -1, y_zero = -1;
  int bias = -1, int_bias = -1;  // float32 [n]; int32 [n]
  bool quantize_a = false;       // A is float32 and quantised to u8 by its range
  bool trans_a = false, trans_b = false;
  bool float_output = false;
  float alpha = 1;
};

Packing u8s8_packing(const GemmU8S8& kernel, const Desc& b, bool transposed) {
  const Shape& s = b.shape;
  int64_t k = s.rank() == 1 ? s[0] : s[s.rank() - 2], n = s.rank() == 1 ? 1 : s.back();
  const int64_t matrices = s.rank() == 1 ? 1 : s.elements(0, s.rank() - 2);
  if (transposed) std::swap(k, n);
  const int64_t stride_k = transposed ? 1 : n, stride_n = transposed ? k : 1;
  const bool flip = b.dtype == DType::u8;
  const std::string rest = words("_", name_of(b.dtype), "_k", k, "_n", n, transposed ? "_t" : "", "_b", matrices);
  const U8S8Panels panels{1, k, n, kernel.nr};
  Packing how;
  how.layout = words("gemm_u8s8_nr", kernel.nr, rest);
  how.bytes = static_cast<size_t>(matrices * packed_bytes(panels));
  how.pack = [=](const Tensor& dense, void* packed) {
    for (int64_t i = 0; i < matrices; ++i)
      gemm_u8s8_pack(panels, dense.as<uint8_t>() + i * k * n, flip, 0, stride_k, stride_n,
                     static_cast<char*>(packed) + i * packed_bytes(panels), 0, panel_count(panels));
  };
  how.unpack = [=](const std::string& layout, const void* packed, void* dense) {
    U8S8Panels from = panels;
    check_model(std::sscanf(layout.c_str(), "gemm_u8s8_nr%d", &from.nr) == 1 && from.nr > 0 && from.nr % 16 == 0 &&
                    layout == words("gemm_u8s8_nr", from.nr, rest),
                "packed layout '", layout, "' is not one of gemm_u8s8_nr*", rest);
    for (int64_t i = 0; i < matrices; ++i)
      gemm_u8s8_unpack(from, static_cast<const char*>(packed) + i * packed_bytes(from), flip, 0, stride_k, stride_n,
                       static_cast<char*>(dense) + i * k * n);
  };
  return how;
}

bool is_8_bit(DType t) { return t == DType::u8 || t == DType::s8; }

class QuantizedMatMulOp final : public Op {
 public:
  QuantizedMatMulOp(BuildContext& ctx, const QuantizedForm& form) : form_(form), kernel_(gemm_u8s8(ctx.isa)) {
    const Desc* b = ctx.constant_desc(form.b);
    if (!b || !is_8_bit(b->dtype) || b->shape.rank() == 0) return;
    if (form.trans_b && b->shape.rank() != 2) return;
    packed_ = ctx.packed(form.b, u8s8_packing(kernel_, *b, form.trans_b));
  }

  void plan(PlanContext& ctx) const override {
    check_types(ctx);
    MatMulShape s = matmul_shape(ctx.shape(form_.a), ctx.shape(form_.b), form_.trans_a, form_.trans_b);
    const QuantizedOutput output = output_type(ctx);
    GemmU8S8Step p;
    p.kernel = &kernel_;
    p.output = output;
    p.n = s.n;
    p.k = s.k;
    QuantizationStep q = quantization(ctx, s);
    p.by_rows = q.rows != 1;
    const int64_t m = s.m;
    if (!p.by_rows) fold_batch_into_rows(s);
    p.m = s.m;
    p.batch_rank = s.batch_rank;
    const U8S8Panels panels{1, s.k, s.n, kernel_.nr};
    for (int d = 0; d < s.batch_rank; ++d) {
      p.batch[d] = s.batch[d];
      p.a_batch[d] = s.a_batch[d] * m * s.k;
      p.b_batch[d] = s.b_batch[d] * packed_bytes(panels);
    }
    if (output == QuantizedOutput::u8 || output == QuantizedOutput::s8) p.zero = known_zero(ctx);
    p.flip_a = q.signed_a;

    Operand a_scale = input(ctx, form_.a_scale), a_zero = input(ctx, form_.a_zero);
    const Operand a = form_.quantize_a ? quantized_a(ctx, a_scale, a_zero) : rows_of_a(ctx, s, m);
    const Operand b = packed_ ? ctx.address(packed_) : packed_b(ctx, panels);
    const Operand parameters = ctx.scratch(static_cast<size_t>(q.rows + q.n) * 8);
    const Operand za = parameters, zb = za.plus(q.rows * 4), row_scale = zb.plus(q.n * 4),
                  column_scale = row_scale.plus(q.rows * 4);
    ctx.step("quantization", quantization_step, q,
             {a_zero, input(ctx, form_.b_zero), a_scale, input(ctx, form_.b_scale), input(ctx, form_.y_scale), za, zb,
              row_scale, column_scale});

    const double work = static_cast<double>(s.batches()) * s.m * s.n * s.k;
    const Operand y = ctx.output(0, dtype_of(output), s.out);
    if (s.out.elements() == 0) return;
    ctx.step(kernel_.name, gemm_u8s8_step, p,
             {a, b, za, b_has_zero(ctx) ? zb : Operand{0, 0}, input(ctx, form_.int_bias), row_scale, column_scale,
              input(ctx, form_.bias), y},
             ctx.parts_for(work / 128 + static_cast<double>(s.n * s.k) / 32), 2 * work);
  }

 private:
  static Operand input(PlanContext& ctx, int i) { return i >= 0 && ctx.has_input(i) ? ctx.in(i) : Operand{0, 0}; }
  static DType dtype_of(QuantizedOutput o) {
    switch (o) {
      case QuantizedOutput::f32:
        return DType::f32;
      case QuantizedOutput::u8:
        return DType::u8;
      case QuantizedOutput::s8:
        return DType::s8;
      default:
        return DType::s32;
    }
  }

  void check_types(PlanContext& ctx) const {
    const DType a = ctx.dtype(form_.a), b = ctx.dtype(form_.b);
    if (!is_8_bit(b)) ctx.not_native(words("B of type ", name_of(b)));
    if (form_.quantize_a ? a != DType::f32 : !is_8_bit(a)) ctx.not_native(words("A of type ", name_of(a)));
    const DType a_type = form_.quantize_a ? DType::u8 : a;
    const auto is = [&](int i, DType t, const char* what) {
      if (i >= 0 && ctx.has_input(i)) check(ctx.dtype(i) == t, what, " is ", ctx.input(i), ", needed: ", name_of(t));
    };
    is(form_.a_zero, a_type, "A's zero point");
    is(form_.b_zero, b, "B's zero point");
    for (int i : {form_.a_scale, form_.b_scale, form_.y_scale})
      if (i >= 0 && ctx.has_input(i) && ctx.dtype(i) != DType::f32)
        ctx.not_native(words("scales of type ", name_of(ctx.dtype(i))));
    is(form_.bias, DType::f32, "the bias");
    is(form_.int_bias, DType::s32, "the bias");
  }

  QuantizedOutput output_type(PlanContext& ctx) const {
    const bool scaled = form_.y_scale >= 0 && ctx.has_input(form_.y_scale);
    if (form_.float_output && !scaled) return QuantizedOutput::f32;
    if (!scaled) return QuantizedOutput::s32;
    const bool has_zero = form_.y_zero >= 0 && ctx.has_input(form_.y_zero);
    const DType t = has_zero ? ctx.dtype(form_.y_zero) : ctx.dtype(form_.a);
    if (!is_8_bit(t)) ctx.not_native(words("an output of type ", name_of(t)));
    return t == DType::u8 ? QuantizedOutput::u8 : QuantizedOutput::s8;
  }

  float known_zero(PlanContext& ctx) const {
    if (form_.y_zero < 0 || !ctx.has_input(form_.y_zero)) return 0;
    if (ctx.input(form_.y_zero).elements() != 1) ctx.not_native("an output zero point per row");
    const void* zero = ctx.require(form_.y_zero);
    return ctx.dtype(form_.y_zero) == DType::u8 ? *static_cast<const uint8_t*>(zero)
                                                : *static_cast<const int8_t*>(zero);
  }

  // True for one value per row (column), false for one value in all.
  static bool spread(PlanContext& ctx, int i, int64_t extent, bool last_axis, const char* what) {
    if (i < 0 || !ctx.has_input(i)) return false;
    const Shape& s = ctx.shape(i);
    const int64_t n = s.elements();
    if (n == 1) return false;
    const bool along = s.rank() == 1 || (last_axis ? s.back() : s[s.rank() - 2]) == n;
    if (n != extent && along) check(false, what, " is ", ctx.input(i), ", needed: one value or ", extent);
    if (n != extent || !along) ctx.not_native(words(what, " of shape ", s));
    return true;
  }

  QuantizationStep quantization(PlanContext& ctx, const MatMulShape& s) const {
    QuantizationStep q;
    q.signed_a = ctx.dtype(form_.a) == DType::s8;
    q.signed_b = ctx.dtype(form_.b) == DType::s8;
    q.a_zero_by_row = spread(ctx, form_.a_zero, s.m, false, "A's zero point");
    q.b_zero_by_column = spread(ctx, form_.b_zero, s.n, true, "B's zero point");
    q.a_scale_by_row = spread(ctx, form_.a_scale, s.m, false, "A's scale");
    q.b_scale_by_column = spread(ctx, form_.b_scale, s.n, true, "B's scale");
    if (spread(ctx, form_.y_scale, s.m, false, "the output's scale")) ctx.not_native("an output scale per row");
    for (int i : {form_.bias, form_.int_bias})
      if (i >= 0 && ctx.has_input(i) &&
          (ctx.shape(i).rank() == 0 || ctx.shape(i).back() != s.n || ctx.input(i).elements() != s.n)) {
        check(i != form_.bias, "the bias is ", ctx.input(i), ", needed: [", s.n, "]");
        ctx.not_native(words("C of shape ", ctx.shape(i)));
      }
    q.rows = q.a_zero_by_row || q.a_scale_by_row ? s.m : 1;
    q.n = s.n;
    q.factor = form_.alpha;
    return q;
  }

  // B's zero point costs a sum over each row of A: left out where it is known to be 0 (128 for u8).
  bool b_has_zero(PlanContext& ctx) const {
    const bool given = form_.b_zero >= 0 && ctx.has_input(form_.b_zero);
    const bool is_signed = ctx.dtype(form_.b) == DType::s8;
    if (!given) return !is_signed;
    const auto* zero = static_cast<const uint8_t*>(ctx.known(form_.b_zero));
    if (!zero) return true;
    const int64_t n = ctx.input(form_.b_zero).elements();
    return !std::all_of(zero, zero + n, [&](uint8_t v) { return v == (is_signed ? 0 : 128); });
  }

  Operand rows_of_a(PlanContext& ctx, const MatMulShape& s, int64_t m) const {
    const Shape& a = ctx.shape(form_.a);
    if (!form_.trans_a || a.rank() < 2 || m == 1 || s.k == 1 || a.elements() == 0) return ctx.in(form_.a);
    const Operand rows = ctx.scratch(ctx.input(form_.a).bytes());
    add_copy(ctx, transpose_copy(a.elements(0, a.rank() - 2), s.k, m, 1), ctx.in(form_.a), rows);
    return rows;
  }

  Operand quantized_a(PlanContext& ctx, Operand& a_scale, Operand& a_zero) const {
    const int64_t n = ctx.input(form_.a).elements();
    const int parts = ctx.parts_for(static_cast<double>(n) / 8);
    const Operand ranges = ctx.scratch(static_cast<size_t>(parts) * 2 * sizeof(float));
    const Operand bytes = ctx.scratch(static_cast<size_t>(n));
    a_scale = ctx.scratch(sizeof(float));
    a_zero = ctx.scratch(1);
    ctx.step("range", range_step, RangeStep{n}, {ctx.in(form_.a), ranges}, parts);
    ctx.step("dynamic_quantize", dynamic_quantize_step, DynamicQuantizeStep{n, parts},
             {ctx.in(form_.a), ranges, bytes, a_scale, a_zero}, parts);
    return bytes;
  }

  Operand packed_b(PlanContext& ctx, const U8S8Panels& panels) const {
    const Shape& b = ctx.shape(form_.b);
    PackU8S8Step p;
    p.panels = panels;
    p.flip_b = ctx.dtype(form_.b) == DType::u8;
    p.matrices = b.rank() < 2 ? 1 : b.elements(0, b.rank() - 2);
    const bool transposed = form_.trans_b && b.rank() > 1;
    p.stride_k = transposed ? 1 : panels.n;
    p.stride_n = transposed ? panels.k : 1;
    const Operand packed = ctx.scratch(static_cast<size_t>(p.matrices * packed_bytes(panels)));
    if (p.matrices * panel_count(panels) > 0)
      ctx.step("pack_u8s8", pack_u8s8_step, p, {ctx.in(form_.b), packed},
               ctx.parts_for(static_cast<double>(p.matrices * panels.k * panels.n)));
    return packed;
  }

  QuantizedForm form_;
  const GemmU8S8& kernel_;
  const void* packed_ = nullptr;
};

std::unique_ptr<Op> make(BuildContext& ctx, const QuantizedForm& form) {
  return std::make_unique<QuantizedMatMulOp>(ctx, form);
}

}  // namespace

std::unique_ptr<Op> make_matmul_integer(BuildContext& ctx) {
  QuantizedForm form;
  form.a_zero = 2;
  form.b_zero = 3;
  return make(ctx, form);
}

std::unique_ptr<Op> make_qlinear_matmul(BuildContext& ctx) {
  QuantizedForm form;
  form.a_scale = 1;
  form.a_zero = 2;
  form.b = 3;
  form.b_scale = 4;
  form.b_zero = 5;
  form.y_scale = 6;
  form.y_zero = 7;
  return make(ctx, form);
}

std::unique_ptr<Op> make_matmul_integer_to_float(BuildContext& ctx) {
  QuantizedForm form;
  form.a_scale = 2;
  form.b_scale = 3;
  form.a_zero = 4;
  form.b_zero = 5;
  form.bias = 6;
  form.float_output = true;
  return make(ctx, form);
}

std::unique_ptr<Op> make_dynamic_quantize_matmul(BuildContext& ctx) {
  QuantizedForm form;
  form.b_scale = 2;
  form.b_zero = 3;
  form.bias = 4;
  form.quantize_a = form.float_output = true;
  return make(ctx, form);
}

std::unique_ptr<Op> make_qgemm(BuildContext& ctx) {
  const Attributes& attributes = ctx.node.attributes;
  QuantizedForm form;
  form.a_scale = 1;
  form.a_zero = 2;
  form.b = 3;
  form.b_scale = 4;
  form.b_zero = 5;
  form.int_bias = 6;
  form.y_scale = 7;
  form.y_zero = 8;
  form.float_output = true;
  form.trans_a = attributes.i("transA", 0) != 0;
  form.trans_b = attributes.i("transB", 0) != 0;
  form.alpha = attributes.f("alpha", 1);
  return make(ctx, form);
}

}  // namespace fi
