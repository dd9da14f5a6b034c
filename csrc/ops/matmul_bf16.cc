// SPDX-License-Identifier: Apache-2.0
// fastinfer::MatMul, which may be allowed to round its operands to bfloat16.
#include "csrc/ops/activation.h"
#include "csrc/ops/bf16.h"
#include "csrc/ops/matmul_shape.h"

namespace fi {

std::unique_ptr<Op> make_fastinfer_matmul(BuildContext&);  // csrc/ops/matmul.cc

namespace {

// A · B with a constant matrix B (transposed or not) in bfloat16 panels.
class MatMulBF16 final : public Op {
 public:
  MatMulBF16(BuildContext& ctx, const Shape& b)
      : trans_b_(ctx.node.attributes.i("transB", 0) != 0),
        epilogue_(read_epilogue(ctx.node.attributes)),
        y_(output_dtype(ctx.node)),
        b_(b),
        kernel_(gemm_bf16(ctx.isa)) {
    epilogue_.scale = ctx.node.attributes.f("alpha", 1);
    const int64_t k = b[trans_b_ ? 1 : 0], n = b[trans_b_ ? 0 : 1];
    const int64_t stride_k = trans_b_ ? 1 : n, stride_n = trans_b_ ? k : 1;
    const BF16Panels panels{1, k, n};
    Packing how;
    how.layout = words("gemm_bf16_k", k, "_n", n, trans_b_ ? "_t" : "");
    how.bytes = static_cast<size_t>(panels.elements()) * 2;
    how.pack = [=](const Tensor& dense, void* packed) {
      gemm_bf16_pack(panels, dense.as<float>(), 0, stride_k, stride_n, static_cast<uint16_t*>(packed));
    };
    how.unpack = [=](const std::string&, const void* packed, void* dense) {
      gemm_bf16_unpack(panels, static_cast<const uint16_t*>(packed), static_cast<float*>(dense), 0, stride_k, stride_n);
    };
    packed_ = ctx.packed(1, how);
  }

  void plan(PlanContext& ctx) const override {
    check(float_or_bf16(ctx.dtype(0)), "A is ", ctx.input(0), ": float32 or bfloat16 is needed");
    MatMulShape s = matmul_shape(ctx.shape(0), b_, false, trans_b_);
    GemmBF16Step p;
    p.kernel = &kernel_;
    p.m = s.m * s.batches();
    p.n = s.n;
    p.k = p.lda = s.k;
    p.a_bf16 = ctx.dtype(0) == DType::bf16;
    p.y_bf16 = y_ == DType::bf16;
    p.epilogue = epilogue_;
    Operand bias{0, 0}, residual{0, 0};
    if (ctx.has_input(2)) {
      const Desc& d = ctx.input(2);
      check(d.dtype == DType::f32 && d.elements() == s.n && d.shape.rank() > 0 && d.shape.back() == s.n, "bias is ", d,
            ", needed: float32 [", s.n, "]");
      bias = ctx.in(2);
    }
    const bool adds = ctx.has_input(3);
    if (adds) {
      const Desc& r = ctx.input(3);
      check(float_or_bf16(r.dtype) && r.shape == s.out, "the residual is ", r, ", needed: float32 or bfloat16 ", s.out);
      p.residual_bf16 = r.dtype == DType::bf16;
      residual = ctx.in(3);
    }
    const int parts = ctx.parts_for(gemm_bf16_prepare(p));
    const Operand y = adds && ctx.dtype(3) == y_ ? ctx.output_over(0, y_, s.out, 3) : ctx.output(0, y_, s.out);
    if (s.out.elements() == 0) return;
    const size_t scratch = gemm_bf16_scratch(p, parts);
    ctx.step(kernel_.name, gemm_bf16_step, p,
             {ctx.in(0), ctx.address(packed_), bias, residual, y, scratch ? ctx.scratch(scratch) : Operand{0, 0}},
             parts, 2.0 * static_cast<double>(p.m) * static_cast<double>(p.n) * static_cast<double>(p.k));
  }

 private:
  bool trans_b_;
  Epilogue epilogue_;
  DType y_;
  Shape b_;
  const GemmBF16& kernel_;
  const void* packed_ = nullptr;
};

}  // namespace

std::unique_ptr<Op> make_matmul_of_precision(BuildContext& ctx) {
  const Desc* b = ctx.constant_desc(1);
  const bool fits = b && b->dtype == DType::f32 && b->shape.rank() == 2 && ctx.node.attributes.i("transA", 0) == 0;
  if (fits && allows_bf16(ctx.node)) return std::make_unique<MatMulBF16>(ctx, b->shape);
  return make_fastinfer_matmul(ctx);
}

}  // namespace fi
