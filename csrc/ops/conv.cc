// SPDX-License-Identifier: Apache-2.0
// Conv in both layouts: 1x1 is a GEMM, 3x3 on larger maps Winograd, depthwise its own kernel, the rest indirect GEMM.
#include <mutex>

#include "csrc/ops/activation.h"
#include "csrc/ops/copy_step.h"
#include "csrc/ops/spatial.h"
#include "kernels/conv/conv.h"
#include "kernels/depthwise/depthwise.h"
#include "kernels/move/transpose.h"
#include "kernels/winograd/winograd.h"

namespace fi {
namespace {

// What the weights' shape says.
struct Filter {
  int64_t out_channels, group_channels, taps, groups;
  std::vector<int64_t> kernel;

  Filter(const Shape& w, int64_t groups) : groups(groups) {
    check(w.rank() >= 3 && w.rank() <= 5, "weight ", w, " has rank ", w.rank(), ", needed 3 to 5");
    check_model(groups >= 1 && w[0] % groups == 0, "weight ", w, " does not divide into ", groups, " groups");
    out_channels = w[0];
    group_channels = w[1];
    kernel.assign(w.begin() + 2, w.end());
    taps = w.elements(2, w.rank());
  }
  bool depthwise() const { return groups > 1 && group_channels == 1 && out_channels == groups; }
  std::string layout(const GemmF32& gemm) const {
    if (depthwise()) return words("depthwise_f32_", out_channels, "x", taps);
    return words("conv_f32_nr", gemm.nr, "_g", groups, "_", out_channels, "x", group_channels, "x", taps);
  }
  int64_t packed_floats() const {
    return depthwise() ? taps * out_channels : conv_packed_floats(groups, out_channels, group_channels, taps);
  }
  void pack(const GemmF32& gemm, const float* w, float* packed) const {
    if (!depthwise()) return conv_pack(gemm, groups, out_channels, group_channels, taps, w, packed);
    for (int64_t c = 0; c < out_channels; ++c)
      for (int64_t t = 0; t < taps; ++t) packed[t * out_channels + c] = w[c * taps + t];
  }
  void unpack(int nr, const float* packed, float* w) const {
    if (!depthwise()) return conv_unpack(nr, groups, out_channels, group_channels, taps, packed, w);
    for (int64_t c = 0; c < out_channels; ++c)
      for (int64_t t = 0; t < taps; ++t) w[c * taps + t] = packed[t * out_channels + c];
  }
};

int nr_of(const std::string& layout) {
  const size_t at = layout.find("_nr");
  return at == std::string::npos ? 0 : std::atoi(layout.c_str() + at + 3);
}

struct PackFilter {
  const GemmF32* gemm;
  int64_t out_channels, group_channels, taps, groups;
  bool depthwise;
};
Status pack_filter_step(const void* params, void* const* args, int, int) {
  const auto& p = *static_cast<const PackFilter*>(params);
  Filter f(Shape{p.out_channels, p.group_channels, p.taps}, p.groups);
  f.pack(*p.gemm, static_cast<const float*>(args[0]), static_cast<float*>(args[1]));
  return Status::ok;
}

// com.microsoft FusedConv names activations as operators and gives their parameters in a list.
Epilogue read_fused_conv(const Attributes& a) {
  const std::string name = a.s("activation", "");
  const std::vector<float> given = a.floats("activation_params");
  const auto param = [&](size_t i, float fallback) { return i < given.size() ? given[i] : fallback; };
  Epilogue e;
  if (name.empty()) return e;
  if (name == "Relu") e.activation = Activation::relu;
  else if (name == "Tanh") e.activation = Activation::tanh;
  else if (name == "Sigmoid") e.activation = Activation::sigmoid;
  else if (name == "LeakyRelu") e.activation = Activation::leaky_relu, e.alpha = param(0, 0.01f);
  else if (name == "Clip") e.activation = Activation::clip, e.alpha = param(0, -3.402823e38f), e.beta = param(1, 3.402823e38f);
  else if (name == "HardSigmoid") e.activation = Activation::hard_sigmoid, e.alpha = param(0, 0.2f), e.beta = param(1, 0.5f);
  else throw ModelError("unknown activation '" + name + "'");
  return e;
}

class Conv final : public Op {
 public:
  explicit Conv(BuildContext& ctx)
      : window_(ctx.node), gemm_(gemm_f32(ctx.isa)), isa_(ctx.isa), groups_(ctx.node.attributes.i("group", 1)),
        channels_last_(ctx.node.domain == "fastinfer" && ctx.node.attributes.i("channels_last", 0) != 0),
        epilogue_(ctx.node.domain == "com.microsoft" ? read_fused_conv(ctx.node.attributes)
                                                     : read_epilogue(ctx.node.attributes)) {
    const Desc* w = ctx.constant_desc(1);
    if (!w || w->dtype != DType::f32) return;
    const Filter f(w->shape, groups_);
    const GemmF32& gemm = gemm_;
    Packing how;
    how.layout = f.layout(gemm);
    how.bytes = static_cast<size_t>(f.packed_floats()) * sizeof(float);
    how.pack = [f, &gemm](const Tensor& dense, void* packed) {
      f.pack(gemm, dense.as<float>(), static_cast<float*>(packed));
    };
    how.unpack = [f](const std::string& layout, const void* packed, void* dense) {
      f.unpack(nr_of(layout), static_cast<const float*>(packed), static_cast<float*>(dense));
    };
    packed_ = static_cast<const float*>(ctx.packed(1, how));
  }

  void plan(PlanContext& ctx) const override {
    for (int i = 0; i < 4 && i < ctx.n_inputs(); ++i)
      if (ctx.has_input(i) && ctx.dtype(i) != DType::f32) ctx.not_native(words("input ", i, " is ", name_of(ctx.dtype(i))));
    const Filter f(ctx.shape(1), groups_);
    const Image in = image_of(ctx.shape(0), channels_last_);
    check(in.spatial == static_cast<int>(f.kernel.size()), "input ", ctx.shape(0), " and weight ", ctx.shape(1),
          " differ in rank");
    check(in.channels == f.group_channels * groups_, "input ", ctx.shape(0), " has ", in.channels, " channels, weight ",
          ctx.shape(1), " in ", groups_, " groups needs ", f.group_channels * groups_);
    const Geometry g = geometry_of(window_, in, f.kernel);
    const Image out = output_image(g, in, f.out_channels);
    if (ctx.has_input(2))
      check(ctx.shape(2).elements() == f.out_channels, "bias ", ctx.shape(2), ", needed [", f.out_channels, "]");
    const bool residual = ctx.has_input(3);
    if (residual)
      check(ctx.shape(3) == out.shape(), "residual ", ctx.shape(3), ", needed the output's shape ", out.shape());
    const Operand y = ctx.output(0, DType::f32, out.shape());
    if (out.shape().elements() == 0) return;
    Task t{f, g, in.batch, in.channels, nullptr, {}, {}, {}, {}, {}};
    t.weights = weights(ctx, f);
    t.bias = ctx.in(2);
    // With one channel or one pixel both layouts are the same bytes.
    const bool turn_in = !channels_last_ && in.channels > 1 && in.pixels() > 1;
    const bool turn_out = !channels_last_ && f.out_channels > 1 && out.pixels() > 1;
    t.x = turn_in ? turned(ctx, ctx.in(0), in.batch, in.channels, in.pixels()) : ctx.in(0);
    t.residual = !residual ? ctx.in(3) : turn_out ? turned(ctx, ctx.in(3), out.batch, out.channels, out.pixels()) : ctx.in(3);
    t.has_residual = residual;
    t.y = turn_out ? ctx.scratch(out.shape().elements() * sizeof(float)) : y;
    run(ctx, t);
    if (turn_out) add_copy(ctx, transpose_copy(out.batch, out.pixels(), out.channels, sizeof(float)), t.y, y);
  }

 private:
  struct Task {
    const Filter& f;
    Geometry g;
    int64_t batch, channels;
    const float* winograd;
    Operand x, weights, bias, residual, y;
    bool has_residual = false;
    double flops() const {
      return 2.0 * static_cast<double>(batch * g.out_pixels()) * static_cast<double>(f.out_channels) *
             static_cast<double>(f.group_channels * f.taps);
    }
  };

  Operand weights(PlanContext& ctx, const Filter& f) const {
    if (packed_) return ctx.address(packed_);
    const Operand w = ctx.scratch(static_cast<size_t>(f.packed_floats()) * sizeof(float));
    ctx.step("conv_pack_weights", pack_filter_step,
             PackFilter{&gemm_, f.out_channels, f.group_channels, f.taps, f.groups, f.depthwise()}, {ctx.in(1), w});
    return w;
  }

  static Operand turned(PlanContext& ctx, Operand x, int64_t batch, int64_t channels, int64_t pixels) {
    const Operand y = ctx.scratch(static_cast<size_t>(batch * channels * pixels) * sizeof(float));
    add_copy(ctx, transpose_copy(batch, channels, pixels, sizeof(float)), x, y);
    return y;
  }

  void run(PlanContext& ctx, const Task& t) const {
    if (t.f.depthwise() && t.g.kernel[0] * t.g.kernel[1] <= 256) return run_depthwise(ctx, t);
    if (is_plain_product(t)) return run_gemm(ctx, t);
    if (const WinogradF32* kernel = winograd(ctx, t)) return run_winograd(ctx, t, *kernel);
    run_indirect(ctx, t);
  }

  bool is_plain_product(const Task& t) const {
    bool plain = t.f.taps == 1 && t.f.groups == 1;
    for (int a = 0; a < 3; ++a) plain = plain && t.g.stride[a] == 1 && t.g.pad[a] == 0 && t.g.pad_end[a] == 0;
    return plain;
  }

  void run_gemm(PlanContext& ctx, const Task& t) const {
    GemmStep q;
    q.kernel = &gemm_;
    q.m = t.batch * t.g.out_pixels();
    q.n = t.f.out_channels;
    q.k = q.lda = t.channels;
    q.epilogue = epilogue_;
    const int parts = ctx.parts_for(gemm_f32_prepare(q));
    ctx.step(gemm_.name, gemm_f32_step, q, {t.x, t.weights, t.bias, t.residual, t.y, Operand{0, 0}}, parts, t.flops());
  }

  void run_depthwise(PlanContext& ctx, const Task& t) const {
    const DepthwiseF32& kernel = depthwise_f32(ctx.isa());
    const DepthwiseStep q{&kernel, t.g, t.batch, t.channels, epilogue_};
    ctx.step(kernel.name, depthwise_step, q, {t.x, t.weights, t.bias, t.residual, t.y},
             ctx.parts_for(t.flops() / 16), t.flops());
  }

  // Four times fewer multiplications, for four times the weights: worth it where a map has enough tiles to use them.
  // Looks at one image only, never at the batch.
  const WinogradF32* winograd(PlanContext& ctx, const Task& t) const {
    const Geometry& g = t.g;
    if (t.f.groups != 1 || g.kernel[0] != 1 || g.kernel[1] != 3 || g.kernel[2] != 3) return nullptr;
    for (int a = 0; a < 3; ++a)
      if (g.stride[a] != 1 || g.dilation[a] != 1 || g.in[0] != 1 || g.pad[0] != 0 || g.pad_end[0] != 0) return nullptr;
    const int64_t tiles = (g.out[1] + 3) / 4 * ((g.out[2] + 3) / 4);
    if (tiles < 9 || t.channels < 16 || t.f.out_channels < 16) {
      ctx.refuse("winograd: fewer than 9 tiles or 16 channels");
      return nullptr;
    }
    if (!packed_) {
      ctx.refuse("winograd: weights are not constant");
      return nullptr;
    }
    return winograd_f32(ctx.isa(), 4);
  }

  void run_winograd(PlanContext& ctx, const Task& t, const WinogradF32& kernel) const {
    WinogradProblem q{};
    q.batch = t.batch;
    q.in_h = t.g.in[1], q.in_w = t.g.in[2], q.channels = t.channels;
    q.out_h = t.g.out[1], q.out_w = t.g.out[2], q.out_channels = t.f.out_channels;
    q.pad_top = t.g.pad[1], q.pad_left = t.g.pad[2];
    q.has_bias = ctx.has_input(2);
    q.has_residual = t.has_residual;
    q.epilogue = epilogue_;
    q.kernel = &kernel;
    q.gemm = &gemm_;
    const int parts = ctx.parts_for(t.flops() / 96);
    const Operand scratch = ctx.scratch(winograd_prepare(q, parts));
    const Operand u = ctx.address(transformed(t.f, kernel.m));
    ctx.step(kernel.name, winograd_step, q, {t.x, u, t.bias, t.residual, t.y, scratch}, parts, t.flops());
  }

  // The weights in the Winograd domain, made when a plan first wants them: whether it does depends on the map's size.
  const float* transformed(const Filter& f, int m) const {
    std::call_once(once_, [&] {
      const auto dense = allocate_bytes(static_cast<size_t>(f.out_channels * f.group_channels * 9) * sizeof(float));
      f.unpack(gemm_.nr, packed_, static_cast<float*>(dense.get()));
      const GemmPanels panels = winograd_panels(m, gemm_, f.group_channels, f.out_channels);
      winograd_ = allocate_bytes(static_cast<size_t>(::fi::packed_floats(panels)) * sizeof(float));
      winograd_pack(m, gemm_, static_cast<const float*>(dense.get()), f.group_channels, f.out_channels,
                    static_cast<float*>(winograd_.get()));
    });
    return static_cast<const float*>(winograd_.get());
  }

  void run_indirect(PlanContext& ctx, const Task& t) const {
    ConvStep q;
    q.kernel = &gemm_;
    q.window = t.g;
    q.batch = t.batch;
    q.channels = t.channels;
    q.out_channels = t.f.out_channels;
    q.groups = t.f.groups;
    q.epilogue = epilogue_;
    const Operand x = merged(ctx, t, q);
    const int parts = ctx.parts_for(conv_prepare(q));
    const Operand scratch = ctx.scratch(conv_scratch(q, parts));
    ctx.step(q.merged_width ? "conv_merged_width" : "conv_indirect", conv_step, q,
             {x, t.weights, t.bias, t.residual, t.y, scratch}, parts, t.flops());
  }

  // Few channels (the stem): a tap of 3 floats is too short for the microkernel's loop, a row of taps of an image with its
  // padding written out is one contiguous run.
  Operand merged(PlanContext& ctx, const Task& t, ConvStep& q) const {
    Geometry& g = q.window;
    bool fits = t.f.groups == 1 && t.channels <= 8 && g.kernel[2] > 1 && g.dilation[2] == 1;
    bool padded = false;
    for (int a = 0; a < 3; ++a) {
      fits = fits && g.pad[a] >= 0 && g.pad_end[a] >= 0;
      padded = padded || g.pad[a] > 0 || g.pad_end[a] > 0;
    }
    if (!fits) return t.x;
    q.merged_width = true;
    if (!padded) return t.x;
    const PadImageStep pad{g, t.batch, t.channels};
    for (int a = 0; a < 3; ++a) {
      g.in[a] += g.pad[a] + g.pad_end[a];
      g.pad[a] = g.pad_end[a] = 0;
    }
    const int64_t floats = t.batch * g.in_pixels() * t.channels;
    const Operand x = ctx.scratch(static_cast<size_t>(floats) * sizeof(float));
    ctx.step("conv_pad_image", pad_image_step, pad, {t.x, x}, ctx.parts_for(static_cast<double>(floats) / 8));
    return x;
  }

  WindowAttributes window_;
  const GemmF32& gemm_;
  Isa isa_;
  int64_t groups_;
  bool channels_last_;
  Epilogue epilogue_;
  const float* packed_ = nullptr;
  mutable std::once_flag once_;
  mutable std::shared_ptr<void> winograd_;
};

}  // namespace

std::unique_ptr<Op> make_conv(BuildContext& c) { return std::make_unique<Conv>(c); }

}  // namespace fi
