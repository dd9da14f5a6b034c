// SPDX-License-Identifier: Apache-2.0
// Matrix products of floats: MatMul, Gemm and their fused forms, all on the step of kernels/gemm/gemm.h.
#include <tuple>

#include "csrc/ops/activation.h"
#include "csrc/ops/copy_step.h"
#include "csrc/ops/gemm_pack.h"
#include "csrc/ops/gemm_split.h"
#include "csrc/ops/matmul_shape.h"
#include "kernels/gemm/plain.h"
#include "kernels/gemm/product_f64.h"
#include "kernels/move/transpose.h"

namespace fi {
namespace {

// What the operators differ in. Inputs 0 and 1 are A and B.
struct MatMulForm {
  bool trans_a = false, trans_b = false;
  float alpha = 1, beta = 1;
  Epilogue epilogue;
  int bias = -1;      // input: [n]
  int addend = -1;    // input: broadcast to [m, n] and multiplied by beta (Gemm's C)
  int residual = -1;  // input: Y's shape
  bool matrices_only = false;
};

struct Addends {
  Operand bias{0, 0}, residual{0, 0};  // resolve to nullptr
};

class MatMulOp final : public Op {
 public:
  MatMulOp(BuildContext& ctx, const MatMulForm& form) : form_(form), kernel_(gemm_f32(ctx.isa)) {
    form_.epilogue.scale = form.alpha;
    const Desc* b = ctx.constant_desc(1);
    if (!b || b->dtype != DType::f32 || b->shape.rank() == 0) return;
    packed_ = ctx.packed(1, gemm_packing(kernel_, b->shape, form.trans_b));
  }

  void plan(PlanContext& ctx) const override {
    if (form_.matrices_only)
      check(ctx.shape(0).rank() == 2 && ctx.shape(1).rank() == 2, "Gemm needs matrices, given ", ctx.shape(0), " and ",
            ctx.shape(1));
    check(ctx.dtype(0) == ctx.dtype(1), "A is ", ctx.input(0), ", B is ", ctx.input(1), ": one type is needed");
    MatMulShape s = matmul_shape(ctx.shape(0), ctx.shape(1), form_.trans_a, form_.trans_b);
    if (ctx.dtype(0) == DType::f32)
      plan_f32(ctx, s);
    else
      plan_plain(ctx, s);
  }

 private:
  void plan_f32(PlanContext& ctx, MatMulShape s) const {
    const Shape& b = ctx.shape(1);
    const bool trans_b = form_.trans_b && b.rank() > 1;
    const int64_t m = s.m;
    const Operand a = rows_of_a(ctx, s);
    fold_batch_into_rows(s);

    GemmStep p;
    p.kernel = &kernel_;
    p.m = s.m;
    p.n = s.n;
    p.k = p.lda = s.k;
    p.b_form = packed_ ? GemmB::packed : GemmB::dense;
    p.b_k = trans_b ? 1 : s.n;
    p.b_n = trans_b ? s.k : 1;
    p.batch_rank = s.batch_rank;
    const int64_t b_floats = packed_ ? packed_floats({1, s.k, s.n, kernel_.nr}) : s.k * s.n;
    for (int d = 0; d < s.batch_rank; ++d) {
      p.batch[d] = s.batch[d];
      p.a_batch[d] = s.a_batch[d] * m * s.k;
      p.b_batch[d] = s.b_batch[d] * b_floats;
    }
    p.epilogue = form_.epilogue;
    const double cost = gemm_f32_prepare(p);
    choose_split(ctx, p);
    const int parts = ctx.parts_for(cost);

    const Addends add = addends(ctx, s, m);
    const int64_t scratch = gemm_f32_scratch(p, parts);
    const Operand y = form_.residual >= 0 && ctx.has_input(form_.residual)
                          ? ctx.output_over(0, DType::f32, s.out, form_.residual)
                          : ctx.output(0, DType::f32, s.out);
    if (s.out.elements() == 0) return;
    ctx.step(kernel_.name, gemm_f32_step, p,
             {a, packed_ ? ctx.address(packed_) : ctx.in(1), add.bias, add.residual, y,
              scratch ? ctx.scratch(static_cast<size_t>(scratch) * sizeof(float)) : Operand{0, 0}},
             parts, 2.0 * static_cast<double>(s.batches()) * s.m * s.n * s.k);
  }

  // A with k contiguous.
  Operand rows_of_a(PlanContext& ctx, const MatMulShape& s) const {
    const Shape& a = ctx.shape(0);
    if (!form_.trans_a || a.rank() < 2 || s.m == 1 || s.k == 1 || a.elements() == 0) return ctx.in(0);
    const Operand rows = ctx.scratch(ctx.input(0).bytes());
    add_copy(ctx, transpose_copy(a.elements(0, a.rank() - 2), s.k, s.m, sizeof(float)), ctx.in(0), rows);
    return rows;
  }

  Addends addends(PlanContext& ctx, const MatMulShape& s, int64_t m) const {
    Addends add;
    if (form_.bias >= 0 && ctx.has_input(form_.bias)) {
      const Desc& bias = ctx.input(form_.bias);
      check(bias.dtype == DType::f32 && bias.elements() == s.n && bias.shape.rank() > 0 && bias.shape.back() == s.n,
            "bias is ", bias, ", needed: float32 [", s.n, "]");
      add.bias = ctx.in(form_.bias);
    }
    if (form_.residual >= 0 && ctx.has_input(form_.residual)) {
      const Desc& r = ctx.input(form_.residual);
      check(r.dtype == DType::f32 && r.shape == s.out, "the residual is ", r, ", needed: float32 ", s.out);
      add.residual = ctx.in(form_.residual);
    }
    if (form_.addend >= 0 && ctx.has_input(form_.addend) && form_.beta != 0 && s.out.elements() > 0) {
      const auto [c_m, c_n] = addend_strides(ctx, m, s.n);
      const bool rows = c_m != 0;
      Operand c = ctx.in(form_.addend);
      if (form_.beta != 1 || c_n != 1) {
        const BroadcastAddend p{rows ? m : 1, s.n, c_m, c_n, form_.beta};
        const Operand y = ctx.scratch(static_cast<size_t>(p.m * p.n) * sizeof(float));
        ctx.step("broadcast_addend", broadcast_addend_step, p, {c, y},
                 ctx.parts_for(static_cast<double>(p.m * p.n) / 8));
        c = y;
      }
      (rows ? add.residual : add.bias) = c;
    }
    return add;
  }

  // Of the addend [m or 1, n or 1], with leading axes left out at will.
  std::pair<int64_t, int64_t> addend_strides(PlanContext& ctx, int64_t m, int64_t n) const {
    const Desc& c = ctx.input(form_.addend);
    const Shape& s = c.shape;
    const int64_t cols = s.rank() > 0 ? s.back() : 1, rows = s.rank() > 1 ? s[0] : 1;
    check(s.rank() <= 2 && c.dtype == ctx.dtype(0) && (cols == n || cols == 1) && (rows == m || rows == 1), "C is ", c,
          ", which does not broadcast to ", name_of(ctx.dtype(0)), " [", m, ", ", n, "]");
    return {rows == 1 ? 0 : cols, cols == 1 && n != 1 ? 0 : 1};
  }

  void plan_plain(PlanContext& ctx, const MatMulShape& s) const {
    const DType t = ctx.dtype(0);
    const StepFn step = plain_matmul_step(t);
    const bool scaled = form_.alpha != 1 || (form_.beta != 1 && form_.beta != 0);
    if (!step && t != DType::f64) ctx.not_native(words("no kernel for ", name_of(t), " matrix products"));
    if (form_.epilogue.activation != Activation::none || form_.bias >= 0 || form_.residual >= 0)
      ctx.not_native(words("fused operations on ", name_of(t), " matrix products"));
    if (scaled && t != DType::f64) ctx.not_native("alpha or beta on integers");
    const Shape &a = ctx.shape(0), &b = ctx.shape(1);
    const bool trans_a = form_.trans_a && a.rank() > 1, trans_b = form_.trans_b && b.rank() > 1;
    PlainMatMul p;
    p.m = s.m;
    p.n = s.n;
    p.k = s.k;
    p.a_m = trans_a ? 1 : s.k;
    p.a_k = trans_a ? s.m : 1;
    p.b_k = trans_b ? 1 : s.n;
    p.b_n = trans_b ? s.k : 1;
    p.alpha = form_.alpha;
    p.beta = form_.beta;
    p.batch_rank = s.batch_rank;
    for (int d = 0; d < s.batch_rank; ++d) {
      p.batch[d] = s.batch[d];
      p.a_batch[d] = s.a_batch[d] * s.m * s.k;
      p.b_batch[d] = s.b_batch[d] * s.k * s.n;
    }
    Operand c{0, 0};
    if (form_.addend >= 0 && ctx.has_input(form_.addend) && form_.beta != 0) {
      std::tie(p.c_m, p.c_n) = addend_strides(ctx, s.m, s.n);
      c = ctx.in(form_.addend);
    }
    const double work = static_cast<double>(s.batches()) * s.m * s.n * s.k;
    const Operand y = ctx.output(0, t, s.out);
    if (s.out.elements() == 0) return;
    if (t == DType::f64) {
      const TileF64Kernel kernel = select_tile_f64(ctx.isa());
      ctx.step(kernel.name, matmul_f64_step, MatMulF64{p, kernel.run}, {ctx.in(0), ctx.in(1), c, y},
               ctx.parts_for(work), 2 * work);
      return;
    }
    ctx.step("matmul_plain", step, p, {ctx.in(0), ctx.in(1), c, y}, ctx.parts_for(work), 2 * work);
  }

  MatMulForm form_;
  const GemmF32& kernel_;
  const void* packed_ = nullptr;
};

std::unique_ptr<Op> make(BuildContext& ctx, const MatMulForm& form) { return std::make_unique<MatMulOp>(ctx, form); }

// Gemm's attributes; C is input 2.
MatMulForm read_gemm(const Attributes& attributes) {
  MatMulForm form;
  form.trans_a = attributes.i("transA", 0) != 0;
  form.trans_b = attributes.i("transB", 0) != 0;
  form.alpha = attributes.f("alpha", 1);
  form.beta = attributes.f("beta", 1);
  form.addend = 2;
  form.matrices_only = true;
  return form;
}

// The activation of com.microsoft's fused operators: an ONNX operator's name.
Epilogue read_activation_name(const Attributes& attributes) {
  struct Row {
    const char* name;
    Activation kind;
    float alpha, beta;
  };
  static constexpr Row rows[] = {
      {"", Activation::none, 0, 0},
      {"Relu", Activation::relu, 0, 0},
      {"LeakyRelu", Activation::leaky_relu, 0.01f, 0},
      {"Sigmoid", Activation::sigmoid, 0, 0},
      {"Tanh", Activation::tanh, 0, 0},
      {"HardSigmoid", Activation::hard_sigmoid, 0.2f, 0.5f},
      {"Elu", Activation::elu, 1, 0},
      {"Softplus", Activation::softplus, 0, 0},
  };
  const std::string name = attributes.s("activation", "");
  for (const Row& row : rows)
    if (name == row.name)
      return {row.kind, attributes.f("activation_alpha", row.alpha), attributes.f("activation_beta", row.beta), 1,
              false};
  throw NotNative{"activation " + name};
}

}  // namespace

std::unique_ptr<Op> make_matmul(BuildContext& ctx) { return make(ctx, {}); }

std::unique_ptr<Op> make_fastinfer_matmul(BuildContext& ctx) {
  const Attributes& attributes = ctx.node.attributes;
  MatMulForm form;
  form.trans_a = attributes.i("transA", 0) != 0;
  form.trans_b = attributes.i("transB", 0) != 0;
  form.alpha = attributes.f("alpha", 1);
  form.epilogue = read_epilogue(attributes);
  form.bias = 2;
  form.residual = 3;
  return make(ctx, form);
}

std::unique_ptr<Op> make_fused_matmul(BuildContext& ctx) {
  const Attributes& attributes = ctx.node.attributes;
  if (attributes.i("transBatchA", 0) != 0 || attributes.i("transBatchB", 0) != 0)
    throw NotNative{"transBatchA and transBatchB"};
  MatMulForm form;
  form.trans_a = attributes.i("transA", 0) != 0;
  form.trans_b = attributes.i("transB", 0) != 0;
  form.alpha = attributes.f("alpha", 1);
  return make(ctx, form);
}

std::unique_ptr<Op> make_gemm(BuildContext& ctx) { return make(ctx, read_gemm(ctx.node.attributes)); }

std::unique_ptr<Op> make_fused_gemm(BuildContext& ctx) {
  MatMulForm form = read_gemm(ctx.node.attributes);
  form.epilogue = read_activation_name(ctx.node.attributes);
  return make(ctx, form);
}

// gelu_tanh(X * W + bias)
std::unique_ptr<Op> make_gemm_fast_gelu(BuildContext& ctx) {
  MatMulForm form;
  form.epilogue.activation = Activation::gelu_tanh;
  form.bias = 2;
  return make(ctx, form);
}

}  // namespace fi
