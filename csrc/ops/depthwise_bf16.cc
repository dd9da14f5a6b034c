// SPDX-License-Identifier: Apache-2.0
// fastinfer::Conv with one channel per group on bfloat16 data: weights, sums and activation are float32. The float32
// form does the rest.
#include "csrc/ops/activation.h"
#include "csrc/ops/bf16.h"
#include "csrc/ops/conv.h"
#include "kernels/depthwise/depthwise.h"

namespace fi {

std::unique_ptr<Op> make_conv(BuildContext&);  // csrc/ops/conv.cc

namespace {

class DepthwiseBF16 final : public Op {
 public:
  DepthwiseBF16(BuildContext& b, const Shape& w)
      : attributes_(b.node), epilogue_(read_epilogue(b.node.attributes)), w_(w), f32_(make_conv(b)) {
    const int64_t channels = w[0], taps = w.elements(2, w.rank());
    Packing packing;
    packing.layout = "depthwise_f32";
    packing.bytes = static_cast<size_t>(channels * taps) * 4;
    packing.pack = [=](const Tensor& dense, void* packed) {
      depthwise_pack(dense.as<float>(), channels, taps, static_cast<float*>(packed));
    };
    packing.unpack = [=](const std::string&, const void* packed, void* dense) {
      depthwise_unpack(static_cast<const float*>(packed), channels, taps, static_cast<float*>(dense));
    };
    packed_ = b.packed(1, packing);
    check_model(output_dtype(b.node) == DType::f32 || b.node.attributes.i("channels_last", 0) != 0,
                "bfloat16 output of a depthwise convolution needs channels_last");
  }

  // The output has the input's type.
  void plan(PlanContext& ctx) const override {
    if (ctx.dtype(0) != DType::bf16) return f32_->plan(ctx);
    const Image in = image_of(ctx.shape(0), true);
    check(w_.rank() == in.spatial + 2 && in.channels == w_[0], "weight ", w_, " does not fit input ", ctx.shape(0));
    DepthwiseF32 s;
    s.g = geometry_of(attributes_, in, std::vector<int64_t>(w_.begin() + 2, w_.end()));
    s.batch = in.batch;
    s.channels = in.channels;
    s.epilogue = epilogue_;
    const Shape out = output_image(s.g, in, in.channels).shape();
    check(!ctx.has_input(2) || (ctx.shape(2) == Shape{w_[0]} && ctx.dtype(2) == DType::f32), "bias is ",
          ctx.has_input(2) ? ctx.shape(2) : Shape{}, ", needed float32 ", Shape{w_[0]});
    check(!ctx.has_input(3) || (ctx.shape(3) == out && ctx.dtype(3) == DType::bf16), "the residual is not bfloat16 ",
          out);
    const Operand y = ctx.output(0, DType::bf16, out);
    if (out.elements() == 0) return;
    const DepthwiseKernel& kernel = depthwise_bf16(ctx.isa(), s);
    const int parts = ctx.parts_for(cost_of(s));
    const Operand zeros = ctx.scratch(static_cast<size_t>(depthwise_scratch_floats(s) * parts) * 4);
    ctx.step(kernel.name, kernel.run, s, {ctx.in(0), ctx.address(packed_), ctx.in(2), ctx.in(3), y, zeros}, parts,
             2 * static_cast<double>(out.elements() * s.g.taps()));
  }

 private:
  WindowAttributes attributes_;
  Epilogue epilogue_;
  Shape w_;
  std::unique_ptr<Op> f32_;
  const void* packed_ = nullptr;
};

}  // namespace

std::unique_ptr<Op> make_depthwise_bf16(BuildContext& b, const Shape& w) {
  return std::make_unique<DepthwiseBF16>(b, w);
}

}  // namespace fi
