// SPDX-License-Identifier: Apache-2.0
// Conv, fastinfer::Conv and com.microsoft::FusedConv. All work channels last; the standard layout is transposed in and
// out.
#include "csrc/ops/conv.h"

#include <array>
#include <mutex>

#include "csrc/ops/activation.h"
#include "csrc/ops/conv_choice.h"
#include "csrc/ops/copy_step.h"
#include "csrc/ops/gemm_split.h"
#include "kernels/conv/conv_rows.h"
#include "kernels/depthwise/depthwise.h"
#include "kernels/winograd/winograd.h"

namespace fi {
namespace {

// Below this many input channels a kernel row of a padded copy is one tap: 7 runs of 21 floats instead of 49 of 3.
constexpr int64_t kFewChannels = 16;
// Output channels per group up to which a group of one input channel is depthwise work.
constexpr int64_t kMaxMultiplier = 8;

struct DepthwisePack {
  int64_t channels, taps;
};
Status depthwise_pack_step(const void* params, void* const* args, int, int) {
  const auto& p = *static_cast<const DepthwisePack*>(params);
  depthwise_pack(static_cast<const float*>(args[0]), p.channels, p.taps, static_cast<float*>(args[1]));
  return Status::ok;
}

Epilogue fused_conv_epilogue(const Attributes& a) {
  const std::string name = a.s("activation", "");
  const std::vector<float> params = a.floats("activation_params");
  auto param = [&](size_t i, float fallback) { return i < params.size() ? params[i] : fallback; };
  Epilogue e;
  if (name.empty()) return e;
  constexpr float big = std::numeric_limits<float>::max();
  if (name == "Relu") return e.activation = Activation::relu, e;
  if (name == "Sigmoid") return e.activation = Activation::sigmoid, e;
  if (name == "Tanh") return e.activation = Activation::tanh, e;
  if (name == "LeakyRelu") {
    e.activation = Activation::leaky_relu;
    e.alpha = param(0, 0.01f);
  } else if (name == "Clip") {
    e.activation = Activation::clip;
    e.alpha = param(0, -big);
    e.beta = param(1, big);
  } else if (name == "HardSigmoid") {
    e.activation = Activation::hard_sigmoid;
    e.alpha = param(0, 0.2f);
    e.beta = param(1, 0.5f);
  } else {
    throw ModelError("unknown activation '" + name + "'");
  }
  return e;
}

const char* indirect_name(const GemmF32& kernel) {
  static const std::array<std::string, 5> names = [] {
    std::array<std::string, 5> all;
    for (int i = 0; i < 5; ++i) all[i] = std::string("conv_") + gemm_f32(static_cast<Isa>(i)).name;
    return all;
  }();
  return names[static_cast<int>(kernel.isa)].c_str();
}

// One convolution while it is planned.
struct Problem {
  Image in, out;
  Geometry g;
  ConvWeights weights;
  Operand x, bias, residual, y;              // channels last; x as it comes
  int64_t x_pixel, residual_pixel, y_pixel;  // elements from one pixel to the next
  Epilogue epilogue;

  double macs() const {
    return static_cast<double>(out.batch * out.pixels() * out.channels) *
           static_cast<double>(g.taps() * weights.in_per_group);
  }
  bool pointwise() const {
    return g.taps() == 1 && weights.groups == 1 && in.pixels() == out.pixels() &&
           g.stride[0] * g.stride[1] * g.stride[2] == 1 && g.pad[0] == 0 && g.pad[1] == 0 && g.pad[2] == 0;
  }
  bool few_channels() const {
    for (int a = 0; a < 3; ++a)
      if (g.pad[a] < 0 || g.pad_end[a] < 0) return false;
    return weights.groups == 1 && in.channels < kFewChannels && g.kernel[2] > 1 && g.dilation[2] == 1;
  }
};

class Conv final : public Op {
 public:
  Conv(BuildContext& b, const Epilogue& epilogue) : attributes_(b.node), epilogue_(epilogue), gemm_(&gemm_f32(b.isa)) {
    channels_last_ = b.node.attributes.i("channels_last", 0) != 0;
    x_channels_last_ = channels_last_ && b.node.attributes.i("x_channels_first", 0) == 0;
    groups_ = b.node.attributes.i("group", 1);
    check_model(groups_ >= 1, "group ", groups_, " is not positive");
    const Desc* d = b.constant_desc(1);
    if (!d || d->dtype != DType::f32) return;
    const ConvWeights w = conv_weights(d->shape, groups_, false, attributes_, 16);
    if (is_depthwise(w))
      pack_depthwise(b, w);
    else
      panels_ = ConvPanels(b, 1, groups_, false, attributes_);
  }

  void plan(PlanContext& ctx) const override {
    if (ctx.shape(0).rank() > 5) ctx.not_native("more than three spatial axes");
    const bool plain = !channels_last_ && epilogue_.activation == Activation::none && ctx.n_inputs() < 4;
    if (ctx.dtype(0) == DType::f64 && plain) return plan_conv_f64(ctx, attributes_, groups_);
    for (int i = 0; i < ctx.n_inputs(); ++i)
      if (ctx.has_input(i) && ctx.dtype(i) != DType::f32)
        ctx.not_native(words("convolution of ", name_of(ctx.dtype(i))));
    Problem p = problem(ctx);
    const LayoutOutput out(ctx, p.out, DType::f32, !is_depthwise(p.weights));
    p.y = out.y;
    p.y_pixel = out.row;
    if (p.out.shape().elements() == 0) return;
    if (is_depthwise(p.weights))
      plan_depthwise(ctx, p);
    else if (p.pointwise())
      plan_pointwise(ctx, p);
    else if (const WinogradF32* kernel = winograd(ctx, p))
      plan_winograd(ctx, p, *kernel);
    else if (!plan_rows(ctx, p))
      plan_indirect(ctx, p);
    out.finish(ctx);
  }

 private:
  static bool is_depthwise(const ConvWeights& w) {
    return w.in_per_group == 1 && w.groups > 1 && w.out_per_group <= kMaxMultiplier;
  }

  void pack_depthwise(BuildContext& b, const ConvWeights& w) {
    const int64_t channels = w.groups * w.out_per_group, taps = w.kernel[0] * w.kernel[1] * w.kernel[2];
    Packing packing;
    packing.layout = "depthwise_f32";
    packing.bytes = static_cast<size_t>(channels * taps) * 4;
    packing.pack = [=](const Tensor& dense, void* packed) {
      fi::depthwise_pack(dense.as<float>(), channels, taps, static_cast<float*>(packed));
    };
    packing.unpack = [=](const std::string&, const void* packed, void* dense) {
      depthwise_unpack(static_cast<const float*>(packed), channels, taps, static_cast<float*>(dense));
    };
    depthwise_ = b.packed(1, packing);
  }

  Problem problem(PlanContext& ctx) const {
    Problem p;
    p.in = image_of(ctx.shape(0), x_channels_last_);
    const Shape& w = ctx.shape(1);
    check(w.rank() == p.in.spatial + 2, "weight ", w, " does not fit an input of rank ", ctx.shape(0).rank());
    p.weights = conv_weights(w, groups_, false, attributes_, gemm_->nr);
    Image input = p.in;  // as the model has it, whatever the layout here
    input.channels_last = false;
    check(p.in.channels == w[1] * groups_, "input ", input.shape(), " has ", p.in.channels, " channels, weight ", w,
          " in ", groups_, " groups needs ", w[1] * groups_);
    p.g = geometry_of(attributes_, p.in, std::vector<int64_t>(w.begin() + 2, w.end()));
    p.out = output_image(p.g, p.in, w[0]);
    p.out.channels_last = channels_last_;
    p.epilogue = epilogue_;
    // Only the depthwise kernels want dense pixels.
    const bool rows = channels_last_ && !is_depthwise(p.weights);
    p.x_pixel = p.in.channels;
    p.residual_pixel = p.out.channels;
    p.x = rows && x_channels_last_ ? ctx.in_rows(0, p.x_pixel) : ctx.in(0);
    p.bias = ctx.in(2);
    check(!ctx.has_input(2) || ctx.shape(2) == Shape{w[0]}, "bias is ", ctx.has_input(2) ? ctx.shape(2) : Shape{},
          ", needed ", Shape{w[0]});
    if (ctx.has_input(3)) {
      check(ctx.shape(3) == p.out.shape(), "residual ", ctx.shape(3), " does not have the output's shape ",
            p.out.shape());
      p.residual = rows ? ctx.in_rows(3, p.residual_pixel) : channels_last_form(ctx, p.out, ctx.in(3), DType::f32);
    } else {
      p.residual = ctx.in(3);
    }
    return p;
  }

  void plan_pointwise(PlanContext& ctx, const Problem& p) const {
    GemmStep s;
    s.kernel = gemm_;
    s.m = p.out.batch * p.out.pixels();
    s.n = p.out.channels;
    s.k = p.in.channels;
    s.lda = p.x_pixel;
    s.ldc = p.y_pixel;
    s.ld_residual = p.residual_pixel;
    s.epilogue = p.epilogue;
    const double cost = gemm_f32_prepare(s);
    choose_split(ctx, s);
    const Operand x = channels_last_form(ctx, p.in, p.x, DType::f32), w = panels_.operand(ctx, 1, p.weights);
    ctx.step(s.kernel->name, gemm_f32_step, s, {x, w, p.bias, p.residual, p.y, ctx.address(nullptr)},
             ctx.parts_for(cost), 2 * p.macs());
  }

  // Four times fewer multiplications, for four times the weights: worth it where a map has enough tiles to use them.
  // Looks at one image only, never at the batch.
  const WinogradF32* winograd(PlanContext& ctx, const Problem& p) const {
    const Geometry& g = p.g;
    if (ctx.shapes_only() || p.weights.groups != 1 || g.kernel[0] != 1 || g.kernel[1] != 3 || g.kernel[2] != 3)
      return nullptr;
    if (g.stride[0] * g.stride[1] * g.stride[2] != 1 || g.dilation[1] != g.dilation[2]) return nullptr;
    if (g.in[0] != 1 || g.out[0] != 1 || g.pad[0] != 0) return nullptr;
    if (!panels_.constant()) {
      ctx.refuse("winograd: weights are not constant");
      return nullptr;
    }
    const bool channels = p.in.channels >= 16 && p.out.channels >= 16;
    const int usual = channels ? winograd_size(g.out[1], g.out[2], p.in.channels, p.out.channels, g.dilation[1]) : 0;
    const int m = channels ? choose_winograd(ctx, g, p.in.channels, p.out.channels, usual) : 0;
    if (usual == 0 && m == 0) ctx.refuse("winograd: fewer than 9 tiles or 16 channels");
    return m ? winograd_f32(ctx.isa(), m) : nullptr;
  }

  void plan_winograd(PlanContext& ctx, const Problem& p, const WinogradF32& kernel) const {
    WinogradProblem q{};
    q.batch = p.in.batch;
    q.in_h = p.g.in[1], q.in_w = p.g.in[2], q.channels = p.in.channels;
    q.out_h = p.g.out[1], q.out_w = p.g.out[2], q.out_channels = p.out.channels;
    q.x_pixel = p.x_pixel, q.y_pixel = p.y_pixel, q.residual_pixel = p.residual_pixel;
    q.pad_top = p.g.pad[1], q.pad_left = p.g.pad[2], q.dilation = p.g.dilation[1];
    q.has_bias = ctx.has_input(2);
    q.has_residual = ctx.has_input(3);
    q.epilogue = p.epilogue;
    q.kernel = &kernel;
    q.gemm = gemm_;
    const int parts = ctx.parts_for(p.macs() / 48);
    const Operand x = channels_last_form(ctx, p.in, p.x, DType::f32);
    const Operand scratch = ctx.scratch(winograd_prepare(q, parts));
    ctx.step(kernel.name, winograd_step, q,
             {x, ctx.address(transformed(p, kernel.m)), p.bias, p.residual, p.y, scratch}, parts, 2 * p.macs());
  }

  // The weights in the Winograd domain, made when a plan first wants them: whether it does depends on the map's size.
  const float* transformed(const Problem& p, int m) const {
    Transformed& t = m == 4 ? winograd_4_ : winograd_6_;
    std::call_once(t.once, [&] {
      const int64_t in = p.in.channels, out = p.out.channels;
      const auto dense = allocate_bytes(static_cast<size_t>(out * in * 9) * sizeof(float));
      conv_f32_unpack(p.weights, static_cast<const float*>(panels_.constant()), static_cast<float*>(dense.get()));
      t.packed =
          allocate_bytes(static_cast<size_t>(packed_floats(winograd_panels(m, *gemm_, in, out))) * sizeof(float));
      winograd_pack(m, *gemm_, static_cast<const float*>(dense.get()), in, out, static_cast<float*>(t.packed.get()));
    });
    return static_cast<const float*>(t.packed.get());
  }

  // Stems and convolutions to few channels; false if this is neither.
  bool plan_rows(PlanContext& ctx, const Problem& p) const {
    ConvRows s;
    s.stem = p.few_channels() && conv_rows_stem(p.g, p.in.channels, p.out.channels);
    if (!s.stem && (p.weights.groups != 1 || !conv_rows_narrow(p.g, p.in.channels, p.out.channels, *gemm_)))
      return false;
    s.g = p.g;
    s.batch = p.in.batch;
    s.in_channels = p.in.channels;
    s.out_channels = p.out.channels;
    const bool planes = s.stem && !p.in.channels_last;
    s.x_channel = planes ? p.in.pixels() : 1;
    s.x_pixel = planes ? 1 : p.x_pixel;
    s.y_pixel = p.y_pixel;
    s.residual_pixel = p.residual_pixel;
    s.kernel = gemm_;
    s.epilogue = p.epilogue;
    const Operand x = planes ? p.x : channels_last_form(ctx, p.in, p.x, DType::f32);
    const Operand w = panels_.operand(ctx, 1, p.weights);
    const int parts = ctx.parts_for(conv_rows_prepare(s));
    ctx.step(indirect_name(*s.kernel), conv_rows_step, s,
             {x, w, p.bias, p.residual, p.y, ctx.scratch(conv_rows_scratch(s, parts))}, parts, 2 * p.macs());
    return true;
  }

  void plan_indirect(PlanContext& ctx, const Problem& p) const {
    ConvF32 s;
    s.g = p.g;
    s.batch = p.in.batch;
    s.groups = p.weights.groups;
    s.in_channels = p.in.channels;
    s.pixel_floats = p.x_pixel;
    s.out_channels = p.out.channels;
    s.y_pixel = p.y_pixel;
    s.residual_pixel = p.residual_pixel;
    s.k = p.weights.in_per_group;
    s.kernel = gemm_;
    s.epilogue = p.epilogue;
    const Operand x = p.few_channels() ? padded_copy(ctx, p, s) : channels_last_form(ctx, p.in, p.x, DType::f32);
    const Operand w = panels_.operand(ctx, 1, p.weights);
    const int parts = ctx.parts_for(conv_f32_prepare(s));
    ctx.step(indirect_name(*s.kernel), conv_f32_step, s,
             {x, w, p.bias, p.residual, p.y, ctx.scratch(conv_f32_scratch(s, parts))}, parts, 2 * p.macs());
  }

  // A zero-padded copy in which each kernel row is one contiguous tap; reads either layout.
  static Operand padded_copy(PlanContext& ctx, const Problem& p, ConvF32& s) {
    ConvPad pad;
    pad.g = p.g;
    pad.batch = p.in.batch;
    pad.channels = p.in.channels;
    pad.from_channel = p.in.channels_last ? 1 : p.in.pixels();
    pad.from_pixel = p.in.channels_last ? p.x_pixel : 1;
    const Operand copy = ctx.scratch(static_cast<size_t>(pad.floats()) * 4);
    ctx.step("conv_pad_f32", conv_pad_step, pad, {p.x, copy}, ctx.parts_for(static_cast<double>(pad.floats()) / 4));
    s.k = p.g.kernel[2] * p.in.channels;
    s.pixel_floats = p.in.channels;
    s.g.kernel[2] = 1;
    const int64_t extents[3] = {pad.depth(), pad.height(), pad.width()};
    for (int a = 0; a < 3; ++a) {
      s.g.in[a] = extents[a];
      s.g.pad[a] = s.g.pad_end[a] = 0;
    }
    return copy;
  }

  void plan_depthwise(PlanContext& ctx, const Problem& p) const {
    DepthwiseF32 s;
    s.g = p.g;
    s.batch = p.in.batch;
    s.channels = p.out.channels;
    s.epilogue = p.epilogue;
    const int64_t multiplier = p.weights.out_per_group;
    Operand x = channels_last_form(ctx, p.in, p.x, DType::f32);
    if (multiplier > 1) {  // each input channel once per output channel that looks at it
      const int64_t pixels = p.in.batch * p.in.pixels(), c = p.in.channels;
      const Operand wide = ctx.scratch(static_cast<size_t>(pixels * c * multiplier) * 4);
      StridedCopy copy(4);
      copy.axis(pixels * c, 4, 4 * multiplier);
      copy.axis(multiplier, 0, 4);
      add_copy(ctx, copy, x, wide);
      x = wide;
    }
    Operand w = ctx.address(depthwise_);
    if (!depthwise_) {
      w = ctx.scratch(static_cast<size_t>(s.channels * s.g.taps()) * 4);
      ctx.step("depthwise_pack_f32", depthwise_pack_step, DepthwisePack{s.channels, s.g.taps()}, {ctx.in(1), w});
    }
    const DepthwiseKernel& kernel = depthwise_f32(ctx.isa(), s);
    const int parts = ctx.parts_for(cost_of(s));
    const Operand zeros = ctx.scratch(static_cast<size_t>(depthwise_scratch_floats(s) * parts) * 4);
    ctx.step(kernel.name, kernel.run, s, {x, w, p.bias, p.residual, p.y, zeros}, parts, 2 * p.macs());
  }

  WindowAttributes attributes_;
  Epilogue epilogue_;
  bool channels_last_ = false, x_channels_last_ = false;  // Y and the residual; X
  int64_t groups_ = 1;
  ConvPanels panels_;
  const void* depthwise_ = nullptr;
  const GemmF32* gemm_;
  struct Transformed {
    std::once_flag once;
    std::shared_ptr<void> packed;
  };
  mutable Transformed winograd_4_, winograd_6_;
};

}  // namespace

std::unique_ptr<Op> make_conv(BuildContext& b) { return std::make_unique<Conv>(b, read_epilogue(b.node.attributes)); }
std::unique_ptr<Op> make_fused_conv(BuildContext& b) {
  return std::make_unique<Conv>(b, fused_conv_epilogue(b.node.attributes));
}

}  // namespace fi
