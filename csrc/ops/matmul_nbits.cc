// SPDX-License-Identifier: Apache-2.0
// com.microsoft::MatMulNBits: float32 activations, 4-bit or 8-bit weights in blocks along k.
#include <vector>

#include "csrc/ops/op.h"
#include "kernels/nbits/nbits.h"

namespace fi {
namespace {

// Input numbers.
enum { kA, kB, kScales, kZeros, kGroups, kBias };

class MatMulNBitsOp final : public Op {
 public:
  explicit MatMulNBitsOp(BuildContext& ctx) : gemm_(gemm_f32(ctx.isa)), kernels_(nbits_kernels(ctx.isa)) {
    const Attributes& attributes = ctx.node.attributes;
    const int64_t bits = attributes.i("bits", 4);
    b_ = {attributes.i("K"), attributes.i("N"), attributes.i("block_size"), static_cast<int>(bits)};
    if (bits != 4 && bits != 8) throw NotNative{words("weights of ", bits, " bits")};
    if (ctx.has_input(kGroups)) throw NotNative{"g_idx"};
    if (attributes.i("weight_prepacked", 0) != 0) throw NotNative{"weights packed for another machine"};
    constexpr int64_t most = int64_t{1} << 31;
    check_model(b_.k > 0 && b_.n > 0 && b_.k < most && b_.n < most, "K is ", b_.k, ", N is ", b_.n,
                ", needed: between 1 and 2^31");
    check_model(b_.block >= 16 && b_.block <= most && (b_.block & (b_.block - 1)) == 0, "block_size is ", b_.block,
                ", needed: a power of two from 16 on");
    bytes_ = attributes.i("accuracy_level", 0) >= 4 && b_.block <= kNBitsS8Block;
    pack(ctx);
  }

  void plan(PlanContext& ctx) const override {
    if (ctx.dtype(kA) != DType::f32) ctx.not_native(words("activations of type ", name_of(ctx.dtype(kA))));
    const Shape& a = ctx.shape(kA);
    check(a.rank() > 0 && a.back() == b_.k, "A is ", ctx.input(kA), ", needed: K = ", b_.k, " columns");
    Shape out = a;
    out[out.rank() - 1] = b_.n;
    if (ctx.has_input(kBias))
      check(ctx.dtype(kBias) == DType::f32 && ctx.input(kBias).elements() == b_.n, "the bias is ", ctx.input(kBias),
            ", needed: float32 [", b_.n, "]");
    NBitsStep p{&kernels_, &gemm_, b_, {}, a.elements(0, a.rank() - 1), zeros_ != nullptr};
    const Operand y = ctx.output(0, DType::f32, out);
    bytes_ ? plan_bytes(ctx, p, y) : plan_floats(ctx, p, y);
  }

 private:
  Operand zeros(PlanContext& ctx) const { return zeros_ ? ctx.address(zeros_) : Operand{0, 0}; }

  void plan_floats(PlanContext& ctx, const NBitsStep& p, Operand y) const {
    const double weights = static_cast<double>(b_.k * b_.n), work = static_cast<double>(p.m) * weights;
    const int parts = ctx.parts_for(work / 32 + weights / 16);
    const Operand scratch = p.m > kNBitsFewRows
                                ? ctx.scratch(static_cast<size_t>(parts * kNBitsChunk * 64) * sizeof(float))
                                : Operand{0, 0};
    ctx.step(kernels_.f32_name, nbits_f32_step, p,
             {ctx.in(kA), ctx.address(q_), ctx.address(scales_), zeros(ctx), ctx.in(kBias), y, scratch}, parts,
             2 * work);
  }

  void plan_bytes(PlanContext& ctx, NBitsStep& p, Operand y) const {
    const double weights = static_cast<double>(b_.k * b_.n), rows = static_cast<double>(p.m);
    p.quantized = {p.m, (b_.k + 15) / 16 * 16, blocks_of_k(b_)};
    const Operand quantized = ctx.scratch(static_cast<size_t>(rows_bytes(p.quantized)));
    ctx.step("nbits_quantize", nbits_quantize_step, p, {ctx.in(kA), quantized},
             ctx.parts_for(rows * static_cast<double>(b_.k) / 8));
    ctx.step(kernels_.s8_name, nbits_s8_step, p,
             {quantized, ctx.address(q_), ctx.address(scales_), zeros(ctx), ctx.in(kBias), y},
             ctx.parts_for(rows * weights / 96 + weights / 32), 2 * rows * weights);
  }

  void pack(BuildContext& ctx) {
    const NBitsPanels b = b_;
    const int64_t blocks = blocks_of_k(b);
    const std::string name = words("_k", b.k, "_n", b.n, "_block", b.block);
    const Desc *q = ctx.constant_desc(kB), *scales = ctx.constant_desc(kScales), *zeros = ctx.constant_desc(kZeros);
    if (!q || !scales || (ctx.has_input(kZeros) && !zeros)) throw NotNative{"weights that are not constant"};
    if (scales->dtype != DType::f32) throw NotNative{words("scales of type ", name_of(scales->dtype))};
    check_model(q->dtype == DType::u8 && q->elements() == b.n * blocks * (b.block * b.bits / 8), "B is ", *q,
                ", needed: uint8 [", b.n, ", ", blocks, ", ", b.block * b.bits / 8, "]");
    check_model(scales->elements() == b.n * blocks, "the scales are ", *scales, ", needed: [", b.n, ", ", blocks, "]");
    Packing how;
    how.layout = words("nbits", b.bits, "_groups", name);
    how.bytes = static_cast<size_t>(packed_floats(columns_of(b, groups_of_k(b)))) * 4;
    how.pack = [b](const Tensor& dense, void* packed) {
      pack_nbits(b, dense.as<uint8_t>(), static_cast<uint8_t*>(packed));
    };
    q_ = ctx.packed(kB, how);
    how.layout = words("nbits_scales", name);
    how.bytes = static_cast<size_t>(packed_floats(columns_of(b, blocks))) * sizeof(float);
    how.pack = [b](const Tensor& dense, void* packed) {
      pack_nbits_values(b, dense.as<float>(), static_cast<float*>(packed));
    };
    scales_ = ctx.packed(kScales, how);
    if (zeros) pack_zeros(ctx, *zeros, how);
  }

  // Zero points are floats, or packed in bytes like the weights, each column's from a new byte on.
  void pack_zeros(BuildContext& ctx, const Desc& zeros, Packing& how) {
    const NBitsPanels b = b_;
    const int64_t blocks = blocks_of_k(b), bytes = (blocks * b.bits + 7) / 8;
    const bool is_float = zeros.dtype == DType::f32;
    if (!is_float && zeros.dtype != DType::u8) throw NotNative{words("zero points of type ", name_of(zeros.dtype))};
    check_model(zeros.elements() == b.n * (is_float ? blocks : bytes), "the zero points are ", zeros, ", needed: [",
                b.n, ", ", is_float ? blocks : bytes, "]");
    how.layout = words("nbits", b.bits, "_zeros_k", b.k, "_n", b.n, "_block", b.block);
    how.pack = [=](const Tensor& dense, void* packed) {
      if (is_float) return pack_nbits_values(b, dense.as<float>(), static_cast<float*>(packed));
      std::vector<float> values(static_cast<size_t>(b.n * blocks));
      for (int64_t n = 0; n < b.n; ++n)
        for (int64_t i = 0; i < blocks; ++i) {
          const uint8_t* from = dense.as<uint8_t>() + n * bytes;
          const int v = b.bits == 8 ? from[i] : from[i / 2] >> (i % 2 * 4) & 15;
          values[static_cast<size_t>(n * blocks + i)] = static_cast<float>(v);
        }
      pack_nbits_values(b, values.data(), static_cast<float*>(packed));
    };
    zeros_ = ctx.packed(kZeros, how);
  }

  const GemmF32& gemm_;
  const NBitsKernels& kernels_;
  NBitsPanels b_;
  bool bytes_ = false;  // activations as bytes
  const void *q_ = nullptr, *scales_ = nullptr, *zeros_ = nullptr;
};

}  // namespace

std::unique_ptr<Op> make_matmul_nbits(BuildContext& ctx) { return std::make_unique<MatMulNBitsOp>(ctx); }

}  // namespace fi
