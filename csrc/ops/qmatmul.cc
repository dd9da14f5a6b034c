// SPDX-License-Identifier: Apache-2.0
// Integer matrix products: MatMulInteger, QLinearMatMul and com.microsoft's relatives, on kernels/gemm/gemm_u8s8.h.
#include <algorithm>
#include <cstdio>

#include "csrc/ops/copy_step.h"
#include "csrc/ops/matmul_shape.h"
#include "csrc/ops/requantize.h"
#include "kernels/move/transpose.h"

namespace fi {
namespace {

struct QuantizedForm {
  QuantizedInputs i;
  int bias = -1;            // float32 [n], added to a float output
  bool quantize_a = false;  // A is float32 and quantised to u8 by its range
  bool trans_a = false, trans_b = false;
  QuantizedOutput unscaled = QuantizedOutput::f32;  // without y's scale
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

class QuantizedMatMulOp final : public Op {
 public:
  QuantizedMatMulOp(BuildContext& ctx, const QuantizedForm& form)
      : node_(ctx.node), form_(form), kernel_(gemm_u8s8(ctx.isa)), quantization_(ctx, form.i) {
    const Desc* b = ctx.constant_desc(form.i.b);
    if (!b || !is_8_bit(b->dtype) || b->shape.rank() == 0) return;
    if (form.trans_b && b->shape.rank() != 2) return;
    packed_ = ctx.packed(form.i.b, u8s8_packing(kernel_, *b, form.trans_b));
  }

  void plan(PlanContext& ctx) const override {
    check_types(ctx);
    MatMulShape s = matmul_shape(ctx.shape(form_.i.a), ctx.shape(form_.i.b), form_.trans_a, form_.trans_b);
    const QuantizedOutput output = quantized_output(ctx, form_.i, form_.unscaled);
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
    if (is_byte(output)) p.q = read_requantize(ctx, node_, form_.i, output, s.out);
    p.flip_a = q.signed_a;

    Operand a, a_scale, a_zero;
    if (form_.quantize_a)
      a = quantized_a(ctx, a_scale, a_zero);
    else
      a = rows_of_a(ctx, s, m);
    const Operand b = packed_ ? ctx.address(packed_) : packed_b(ctx, panels);
    const QuantizedScales scales =
        form_.quantize_a ? quantization_.plan(ctx, q, a_scale, a_zero) : quantization_.plan(ctx, q);
    const double work = static_cast<double>(s.batches()) * s.m * s.n * s.k;
    const Operand y = ctx.output(0, dtype_of(output), s.out);
    if (s.out.elements() == 0) return;
    ctx.step(kernel_.name, gemm_u8s8_step, p,
             {a, b, scales.a_zero, b_has_zero(ctx, form_.i) ? scales.b_zero : Operand{0, 0},
              in_or_null(ctx, form_.i.int_bias), scales.row, scales.column, in_or_null(ctx, form_.bias), y,
              in_or_null(ctx, form_.i.residual)},
             ctx.parts_for(work / 128 + static_cast<double>(s.n * s.k) / 32), 2 * work);
  }

 private:
  void check_types(PlanContext& ctx) const {
    const DType a = ctx.dtype(form_.i.a), b = ctx.dtype(form_.i.b);
    if (!is_8_bit(b)) ctx.not_native(words("B of type ", name_of(b)));
    if (form_.quantize_a ? a != DType::f32 : !is_8_bit(a)) ctx.not_native(words("A of type ", name_of(a)));
    const DType a_type = form_.quantize_a ? DType::u8 : a;
    const auto is = [&](int i, DType t, const char* what) {
      if (i >= 0 && ctx.has_input(i)) check(ctx.dtype(i) == t, what, " is ", ctx.input(i), ", needed: ", name_of(t));
    };
    is(form_.i.a_zero, a_type, "A's zero point");
    is(form_.i.b_zero, b, "B's zero point");
    for (int i : {form_.i.a_scale, form_.i.b_scale, form_.i.y_scale})
      if (i >= 0 && ctx.has_input(i) && ctx.dtype(i) != DType::f32)
        ctx.not_native(words("scales of type ", name_of(ctx.dtype(i))));
    is(form_.bias, DType::f32, "the bias");
    check_model(!given(ctx, form_.bias) || !given(ctx, form_.i.y_scale), "a float bias needs a float output");
    is(form_.i.int_bias, DType::s32, "the bias");
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
    q.signed_a = ctx.dtype(form_.i.a) == DType::s8;
    q.signed_b = ctx.dtype(form_.i.b) == DType::s8;
    q.a_zero_by_row = spread(ctx, form_.i.a_zero, s.m, false, "A's zero point");
    q.b_zero_by_column = spread(ctx, form_.i.b_zero, s.n, true, "B's zero point");
    q.a_scale_by_row = spread(ctx, form_.i.a_scale, s.m, false, "A's scale");
    q.b_scale_by_column = spread(ctx, form_.i.b_scale, s.n, true, "B's scale");
    if (spread(ctx, form_.i.y_scale, s.m, false, "the output's scale")) ctx.not_native("an output scale per row");
    for (int i : {form_.bias, form_.i.int_bias})
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

  Operand rows_of_a(PlanContext& ctx, const MatMulShape& s, int64_t m) const {
    const Shape& a = ctx.shape(form_.i.a);
    if (!form_.trans_a || a.rank() < 2 || m == 1 || s.k == 1 || a.elements() == 0) return ctx.in(form_.i.a);
    const Operand rows = ctx.scratch(ctx.input(form_.i.a).bytes());
    add_copy(ctx, transpose_copy(a.elements(0, a.rank() - 2), s.k, m, 1), ctx.in(form_.i.a), rows);
    return rows;
  }

  Operand quantized_a(PlanContext& ctx, Operand& a_scale, Operand& a_zero) const {
    const int64_t n = ctx.input(form_.i.a).elements();
    const Operand bytes = ctx.scratch(static_cast<size_t>(n));
    a_scale = ctx.scratch(sizeof(float));
    a_zero = ctx.scratch(1);
    add_dynamic_quantization(ctx, ctx.in(form_.i.a), n, bytes, a_scale, a_zero);
    return bytes;
  }

  Operand packed_b(PlanContext& ctx, const U8S8Panels& panels) const {
    const Shape& b = ctx.shape(form_.i.b);
    PackU8S8Step p;
    p.panels = panels;
    p.flip_b = ctx.dtype(form_.i.b) == DType::u8;
    p.matrices = b.rank() < 2 ? 1 : b.elements(0, b.rank() - 2);
    const bool transposed = form_.trans_b && b.rank() > 1;
    p.stride_k = transposed ? 1 : panels.n;
    p.stride_n = transposed ? panels.k : 1;
    const Operand packed = ctx.scratch(static_cast<size_t>(p.matrices * packed_bytes(panels)));
    if (p.matrices * panel_count(panels) > 0)
      ctx.step("pack_u8s8", pack_u8s8_step, p, {ctx.in(form_.i.b), packed},
               ctx.parts_for(static_cast<double>(p.matrices * panels.k * panels.n)));
    return packed;
  }

  const Node& node_;
  QuantizedForm form_;
  const GemmU8S8& kernel_;
  Quantization quantization_;
  const void* packed_ = nullptr;
};

std::unique_ptr<Op> make(BuildContext& ctx, const QuantizedForm& form) {
  return std::make_unique<QuantizedMatMulOp>(ctx, form);
}

}  // namespace

std::unique_ptr<Op> make_matmul_integer(BuildContext& ctx) {
  QuantizedForm form;
  form.i.a_zero = 2;
  form.i.b_zero = 3;
  form.unscaled = QuantizedOutput::s32;
  return make(ctx, form);
}

std::unique_ptr<Op> make_qlinear_matmul(BuildContext& ctx) {
  QuantizedForm form;
  form.i = kQLinear;
  form.i.int_bias = -1;
  return make(ctx, form);
}

std::unique_ptr<Op> make_qmatmul(BuildContext& ctx) {
  const Attributes& attributes = ctx.node.attributes;
  QuantizedForm form;
  form.i = kFused;
  form.bias = 14;
  form.trans_a = attributes.i("transA", 0) != 0;
  form.trans_b = attributes.i("transB", 0) != 0;
  form.alpha = attributes.f("alpha", 1);
  return make(ctx, form);
}

std::unique_ptr<Op> make_matmul_integer_to_float(BuildContext& ctx) {
  QuantizedForm form;
  form.i.a_scale = 2;
  form.i.b_scale = 3;
  form.i.a_zero = 4;
  form.i.b_zero = 5;
  form.bias = 6;
  return make(ctx, form);
}

std::unique_ptr<Op> make_dynamic_quantize_matmul(BuildContext& ctx) {
  QuantizedForm form;
  form.i.b_scale = 2;
  form.i.b_zero = 3;
  form.bias = 4;
  form.quantize_a = true;
  return make(ctx, form);
}

std::unique_ptr<Op> make_qgemm(BuildContext& ctx) {
  const Attributes& attributes = ctx.node.attributes;
  QuantizedForm form;
  form.i = kQLinear;
  form.i.int_bias = 6;
  form.i.y_scale = 7;
  form.i.y_zero = 8;
  form.trans_a = attributes.i("transA", 0) != 0;
  form.trans_b = attributes.i("transB", 0) != 0;
  form.alpha = attributes.f("alpha", 1);
  return make(ctx, form);
}

}  // namespace fi
