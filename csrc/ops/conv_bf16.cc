// SPDX-License-Identifier: Apache-2.0
// fastinfer::Conv, which may be allowed to round its operands to bfloat16.
#include "kernels/conv/conv_bf16.h"

#include "csrc/ops/activation.h"
#include "csrc/ops/bf16.h"
#include "csrc/ops/conv.h"
#include "kernels/winograd/winograd_bf16.h"

namespace fi {

std::unique_ptr<Op> make_conv(BuildContext&);                            // csrc/ops/conv.cc
std::unique_ptr<Op> make_depthwise_bf16(BuildContext&, const Shape& w);  // csrc/ops/depthwise_bf16.cc

namespace {

// Below this many input channels a kernel row of a padded copy is one tap, as in the float32 form.
constexpr int64_t kFewChannels = 16;

// On Zen 5, one core, effective GFLOP/s against the direct form: 16 channels 190 : 228, 32 398 : 351, 64 706 : 450.
constexpr int64_t kWinogradChannels = 24;

class ConvBF16Op final : public Op {
 public:
  ConvBF16Op(BuildContext& b, const Shape& w)
      : attributes_(b.node),
        epilogue_(read_epilogue(b.node.attributes)),
        y_(output_dtype(b.node)),
        channels_last_(b.node.attributes.i("channels_last", 0) != 0),
        x_channels_last_(channels_last_ && b.node.attributes.i("x_channels_first", 0) == 0),
        groups_(b.node.attributes.i("group", 1)),
        w_(w),
        interleave_(gemm_f32(b.isa).interleave),
        kernel_(gemm_bf16(b.isa)) {
    const ConvWeights weights = conv_weights(w, groups_, false, attributes_, kBF16Panel);
    winograd_ = fits_winograd(weights, w.rank());
    packed_ = winograd_ ? pack_winograd(b, weights) : pack_direct(b, weights, w.elements());
  }

  void plan(PlanContext& ctx) const override {
    check(float_or_bf16(ctx.dtype(0)), "X is ", ctx.input(0), ": float32 or bfloat16 is needed");
    if (ctx.shape(0).rank() > 5) ctx.not_native("more than three spatial axes");
    const Problem p = problem(ctx);
    const LayoutOutput out(ctx, p.out, y_);
    if (p.out.shape().elements() == 0) return;
    Operand residual = ctx.in(3);
    if (ctx.has_input(3)) residual = channels_last_form(ctx, p.out, residual, ctx.dtype(3));
    if (winograd_)
      plan_winograd(ctx, p, residual, out.y);
    else if (p.pointwise())
      plan_pointwise(ctx, p, residual, out.y);
    else
      plan_indirect(ctx, p, residual, out.y);
    out.finish(ctx);
  }

 private:
  struct Problem {
    Image in, out;
    Geometry g;
    ConvWeights weights;

    double macs() const {
      return static_cast<double>(out.batch * out.pixels() * out.channels) *
             static_cast<double>(g.taps() * weights.in_per_group);
    }
    bool plain() const {  // stride 1, no dilation
      for (int a = 0; a < 3; ++a)
        if (g.stride[a] != 1 || g.dilation[a] != 1) return false;
      return true;
    }
    bool pointwise() const {
      return g.taps() == 1 && weights.groups == 1 && in.pixels() == out.pixels() && plain() && g.pad[0] == 0 &&
             g.pad[1] == 0 && g.pad[2] == 0;
    }
  };

  Problem problem(PlanContext& ctx) const {
    Problem p;
    p.in = image_of(ctx.shape(0), x_channels_last_);
    check(w_.rank() == p.in.spatial + 2, "weight ", w_, " does not fit input ", ctx.shape(0));
    p.weights = conv_weights(w_, groups_, false, attributes_, kBF16Panel);
    check(p.in.channels == w_[1] * groups_, "input ", ctx.shape(0), " has ", p.in.channels, " channels, weight ", w_,
          " in ", groups_, " groups needs ", w_[1] * groups_);
    p.g = geometry_of(attributes_, p.in, std::vector<int64_t>(w_.begin() + 2, w_.end()));
    p.out = output_image(p.g, p.in, w_[0]);
    p.out.channels_last = channels_last_;
    check(!ctx.has_input(2) || (ctx.shape(2) == Shape{w_[0]} && ctx.dtype(2) == DType::f32), "bias is ",
          ctx.has_input(2) ? ctx.shape(2) : Shape{}, ", needed float32 ", Shape{w_[0]});
    check(!ctx.has_input(3) || (ctx.shape(3) == p.out.shape() && float_or_bf16(ctx.dtype(3))),
          "the residual does not have the output's shape ", p.out.shape(), " or is not float32 or bfloat16");
    return p;
  }

  bool residual_bf16(PlanContext& ctx) const { return ctx.has_input(3) && ctx.dtype(3) == DType::bf16; }

  void plan_pointwise(PlanContext& ctx, const Problem& p, Operand residual, Operand y) const {
    GemmBF16Step s;
    s.kernel = &kernel_;
    s.m = p.out.batch * p.out.pixels();
    s.n = p.out.channels;
    s.k = s.lda = p.in.channels;
    s.a_bf16 = ctx.dtype(0) == DType::bf16;
    s.y_bf16 = y_ == DType::bf16;
    s.residual_bf16 = residual_bf16(ctx);
    s.epilogue = epilogue_;
    const Operand x = channels_last_form(ctx, p.in, ctx.in(0), ctx.dtype(0));
    const int parts = ctx.parts_for(gemm_bf16_prepare(s));
    const size_t scratch = gemm_bf16_scratch(s, parts);
    ctx.step(kernel_.name, gemm_bf16_step, s,
             {x, ctx.address(packed_), ctx.in(2), residual, y, scratch ? ctx.scratch(scratch) : ctx.address(nullptr)},
             parts, 2 * p.macs());
  }

  void plan_winograd(PlanContext& ctx, const Problem& p, Operand residual, Operand y) const {
    WinogradBF16Problem q{};
    q.batch = p.in.batch;
    q.in_h = p.g.in[1], q.in_w = p.g.in[2], q.channels = p.in.channels;
    q.out_h = p.g.out[1], q.out_w = p.g.out[2], q.out_channels = p.out.channels;
    q.pad_top = p.g.pad[1], q.pad_left = p.g.pad[2];
    q.x_bf16 = ctx.dtype(0) == DType::bf16;
    q.y_bf16 = y_ == DType::bf16;
    q.residual_bf16 = residual_bf16(ctx);
    q.epilogue = epilogue_;
    q.kernel = &winograd_bf16(ctx.isa());
    q.gemm = &kernel_;
    const int parts = ctx.parts_for(p.macs() / 64);
    const Operand x = channels_last_form(ctx, p.in, ctx.in(0), ctx.dtype(0));
    const Operand scratch = ctx.scratch(winograd_bf16_prepare(q, parts));
    ctx.step(q.kernel->name, winograd_bf16_step, q, {x, ctx.address(packed_), ctx.in(2), residual, y, scratch}, parts,
             2 * p.macs());
  }

  void plan_indirect(PlanContext& ctx, const Problem& p, Operand residual, Operand y) const {
    ConvBF16 s;
    s.g = p.g;
    s.batch = p.in.batch;
    s.groups = p.weights.groups;
    s.in_channels = s.pixel_elements = p.in.channels;
    s.out_channels = p.out.channels;
    s.k = p.weights.in_per_group;
    s.y_bf16 = y_ == DType::bf16;
    s.residual_bf16 = residual_bf16(ctx);
    s.kernel = &kernel_;
    s.epilogue = epilogue_;
    const DType t = ctx.dtype(0);
    const Operand x = merged_ ? padded_copy(ctx, p, s)
                              : rounded(ctx, t, channels_last_form(ctx, p.in, ctx.in(0), t),
                                        p.in.batch * p.in.channels * p.in.pixels());
    const int parts = ctx.parts_for(conv_bf16_prepare(s));
    ctx.step("conv_bf16", conv_bf16_step, s,
             {x, ctx.address(packed_), ctx.in(2), residual, y, ctx.scratch(conv_bf16_scratch(s, parts))}, parts,
             2 * p.macs());
  }

  // A zero-padded copy in which each kernel row is one contiguous tap; reads either layout.
  Operand padded_copy(PlanContext& ctx, const Problem& p, ConvBF16& s) const {
    ConvPad pad;
    pad.g = p.g;
    pad.batch = p.in.batch;
    pad.channels = p.in.channels;
    pad.from_channel = p.in.channels_last ? 1 : p.in.pixels();
    pad.from_pixel = p.in.channels_last ? p.in.channels : 1;
    const Operand copy = ctx.scratch(static_cast<size_t>(pad.floats()) * 2);
    ctx.step("conv_pad_bf16", conv_pad_bf16_step, ConvPadBF16{pad, &kernel_, interleave_, ctx.dtype(0) == DType::bf16},
             {ctx.in(0), copy}, ctx.parts_for(static_cast<double>(pad.floats()) / 4));
    s.k = p.g.kernel[2] * p.in.channels;
    s.g.kernel[2] = 1;
    const int64_t extents[3] = {pad.depth(), pad.height(), pad.width()};
    for (int a = 0; a < 3; ++a) {
      s.g.in[a] = extents[a];
      s.g.pad[a] = s.g.pad_end[a] = 0;
    }
    return copy;
  }

  const void* pack_direct(BuildContext& b, const ConvWeights& weights, int64_t elements) {
    merged_ = merges_width(weights);
    const ConvWeights packed = merged_ ? merged_width(weights) : weights;
    Packing packing;
    packing.layout = words("conv_bf16_g", groups_, merged_ ? "_merged" : "");
    packing.bytes = static_cast<size_t>(conv_bf16_packed_elements(packed)) * 2;
    packing.pack = [=, merged = merged_](const Tensor& dense, void* to) {
      std::vector<float> rows(merged ? static_cast<size_t>(elements) : 0);
      if (merged) move_channels(weights, dense.as<float>(), rows.data(), true);
      conv_bf16_pack(packed, merged ? rows.data() : dense.as<float>(), static_cast<uint16_t*>(to));
    };
    packing.unpack = [=, merged = merged_](const std::string&, const void* from, void* dense) {
      std::vector<float> rows(merged ? static_cast<size_t>(elements) : 0);
      auto* out = static_cast<float*>(dense);
      conv_bf16_unpack(packed, static_cast<const uint16_t*>(from), merged ? rows.data() : out);
      if (merged) move_channels(weights, rows.data(), out, false);
    };
    return b.packed(1, packing);
  }

  static const void* pack_winograd(BuildContext& b, const ConvWeights& w) {
    const BF16Panels panels = winograd_bf16_panels(w.in_per_group, w.out_per_group);
    Packing packing;
    packing.layout = "winograd_bf16_2x2";
    packing.bytes = static_cast<size_t>(panels.elements()) * 2;
    packing.pack = [=](const Tensor& dense, void* to) {
      winograd_bf16_pack(dense.as<float>(), panels.k, panels.n, static_cast<uint16_t*>(to));
    };
    return b.packed(1, packing);
  }

  // A 3x3 window at stride 1 with enough channels to pay for the transforms. Never looks at the map or the batch.
  static bool fits_winograd(const ConvWeights& w, int rank) {
    return rank == 4 && w.groups == 1 && w.kernel[1] == 3 && w.kernel[2] == 3 && w.stride[1] == 1 && w.stride[2] == 1 &&
           w.dilation[1] == 1 && w.dilation[2] == 1 && w.in_per_group >= kWinogradChannels &&
           w.out_per_group >= kWinogradChannels;
  }
  // Whether a kernel row is one tap of a padded copy.
  bool merges_width(const ConvWeights& w) const {
    for (int64_t pad : attributes_.pads)
      if (pad < 0) return false;
    return w.groups == 1 && w.in_per_group < kFewChannels && w.kernel[2] > 1 && w.dilation[2] == 1;
  }
  static ConvWeights merged_width(ConvWeights w) {
    w.in_per_group *= w.kernel[2];
    w.kernel[2] = 1;
    return w;
  }
  // [O, C, rows, width] to [O, width, C, rows], or back: what merged_width describes.
  static void move_channels(const ConvWeights& w, const float* from, float* to, bool forth) {
    const int64_t c = w.in_per_group, rows = w.kernel[0] * w.kernel[1], width = w.kernel[2], all = c * rows * width;
    for (int64_t o = 0; o < w.out_per_group; ++o, from += all, to += all)
      for (int64_t i = 0; i < c; ++i)
        for (int64_t r = 0; r < rows; ++r)
          for (int64_t x = 0; x < width; ++x) {
            const int64_t plain = (i * rows + r) * width + x, merged = (x * c + i) * rows + r;
            to[forth ? merged : plain] = from[forth ? plain : merged];
          }
  }

  WindowAttributes attributes_;
  Epilogue epilogue_;
  DType y_;
  bool channels_last_, x_channels_last_, merged_ = false;
  int64_t groups_;
  Shape w_;
  decltype(GemmF32::interleave) interleave_;
  const GemmBF16& kernel_;
  bool winograd_ = false;
  const void* packed_ = nullptr;
};

}  // namespace

std::unique_ptr<Op> make_conv_of_precision(BuildContext& b) {
  const Desc* w = b.constant_desc(1);
  const int64_t groups = b.node.attributes.i("group", 1);
  if (!allows_bf16(b.node) || !w || w->dtype != DType::f32 || w->shape.rank() < 3 || w->shape.rank() > 5 || groups < 1)
    return make_conv(b);
  const bool depthwise = groups > 1 && w->shape[1] == 1 && w->shape[0] == groups;
  if (depthwise && b.node.attributes.i("x_channels_first", 0) != 0) return make_conv(b);  // X and Y in two layouts
  if (depthwise) return make_depthwise_bf16(b, w->shape);
  if (groups > 1 && w->shape[1] < 4) return make_conv(b);
  return std::make_unique<ConvBF16Op>(b, w->shape);
}

}  // namespace fi
