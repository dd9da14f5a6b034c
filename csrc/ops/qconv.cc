// SPDX-License-Identifier: Apache-2.0
// ConvInteger and QLinearConv (standard and com.microsoft's, which may be channels last).
#include "kernels/conv/qconv.h"

#include <algorithm>
#include <cstdio>

#include "csrc/ops/conv.h"
#include "kernels/depthwise/depthwise_bytes.h"
#include "kernels/gemm/quantize.h"

namespace fi {
namespace {

bool is_8_bit(DType t) { return t == DType::u8 || t == DType::s8; }

// Which inputs mean what; -1: the operator has none.
struct Inputs {
  int x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias;
};
constexpr Inputs kConvInteger{0, -1, 2, 1, -1, 3, -1, -1, -1};
constexpr Inputs kQLinearConv{0, 1, 2, 3, 4, 5, 6, 7, 8};

class QuantizedConv final : public Op {
 public:
  QuantizedConv(BuildContext& b, const Inputs& inputs) : i_(inputs), window_(b.node), kernel_(gemm_u8s8(b.isa)) {
    groups_ = b.node.attributes.i("group", 1);
    channels_last_ = b.node.attributes.i("channels_last", 0) != 0;
    const Desc* d = b.constant_desc(i_.w);
    if (!d || !is_8_bit(d->dtype)) return;
    const ConvWeights w = conv_weights(d->shape, groups_, false, window_, kernel_.nr);
    if (!is_depthwise(w)) packed_ = b.packed(i_.w, packing(w, *d));
  }

  void plan(PlanContext& ctx) const override {
    const DType xt = ctx.dtype(i_.x), wt = ctx.dtype(i_.w);
    if (!is_8_bit(xt) || !is_8_bit(wt)) ctx.not_native(words("convolution of ", name_of(xt), " and ", name_of(wt)));
    if (ctx.shape(i_.x).rank() > 5) ctx.not_native("more than three spatial axes");
    const Image in = image_of(ctx.shape(i_.x), channels_last_);
    const Shape& ws = ctx.shape(i_.w);
    check(ws.rank() == in.spatial + 2, "weight ", ws, " does not fit input ", ctx.shape(i_.x));
    const ConvWeights w = conv_weights(ws, groups_, false, window_, kernel_.nr);
    check(in.channels == ws[1] * groups_, "input ", ctx.shape(i_.x), " has ", in.channels, " channels, weight ", ws,
          " in ", groups_, " groups needs ", ws[1] * groups_);
    const Geometry g = geometry_of(window_, in, std::vector<int64_t>(ws.begin() + 2, ws.end()));
    const Image image = output_image(g, in, ws[0]);
    const QuantizationStep q = quantization(ctx, image.channels);
    const DType yt = output_type(ctx);
    const LayoutOutput out(ctx, image, yt);
    if (image.shape().elements() == 0) return;
    const Operand x = channels_last_form(ctx, in, ctx.in(i_.x), xt);
    const Scales s = scales(ctx, q);
    if (is_depthwise(w))
      plan_depthwise(ctx, in, g, image, x, s, out.y, yt);
    else
      plan_product(ctx, in, g, image, w, x, s, out.y, yt);
    out.finish(ctx);
  }

 private:
  struct Scales {
    Operand x_zero, w_zero, row, column;
  };

  static bool is_depthwise(const ConvWeights& w) { return w.groups > 1 && w.in_per_group == 1 && w.out_per_group == 1; }

  Packing packing(const ConvWeights& w, const Desc& d) const {
    const int64_t taps = w.kernel[0] * w.kernel[1] * w.kernel[2], groups = w.groups;
    const bool flip = d.dtype == DType::u8;
    const U8S8Panels panels = conv_u8s8_panels(groups, w.out_per_group * groups, w.in_per_group, taps, kernel_.nr);
    const std::string rest = words("_", name_of(d.dtype), "_g", groups);
    Packing how;
    how.layout = words("conv_u8s8_nr", kernel_.nr, rest);
    how.bytes = static_cast<size_t>(groups * packed_bytes(panels));
    how.pack = [=](const Tensor& dense, void* packed) { conv_u8s8_pack(panels, groups, flip, dense.data, packed); };
    how.unpack = [=](const std::string& layout, const void* packed, void* dense) {
      U8S8Panels from = panels;
      check_model(std::sscanf(layout.c_str(), "conv_u8s8_nr%d", &from.nr) == 1 && from.nr > 0 && from.nr % 16 == 0 &&
                      layout == words("conv_u8s8_nr", from.nr, rest),
                  "packed layout '", layout, "' is not one of conv_u8s8_nr*", rest);
      conv_u8s8_unpack(from, groups, flip, packed, dense);
    };
    return how;
  }

  Operand in_or_null(PlanContext& ctx, int i) const {
    return i >= 0 && ctx.has_input(i) ? ctx.in(i) : ctx.address(nullptr);
  }

  // One value, or one per channel.
  static bool per_channel(PlanContext& ctx, int i, int64_t channels, const char* what) {
    if (i < 0 || !ctx.has_input(i) || ctx.input(i).elements() == 1) return false;
    check(ctx.input(i).elements() == channels, what, " is ", ctx.input(i), ", needed: one value or ", channels);
    return true;
  }

  QuantizationStep quantization(PlanContext& ctx, int64_t channels) const {
    const auto is = [&](int i, DType t, const char* what) {
      check(i < 0 || !ctx.has_input(i) || ctx.dtype(i) == t, what, " is of another type than ", name_of(t));
    };
    is(i_.x_zero, ctx.dtype(i_.x), "x's zero point");
    is(i_.w_zero, ctx.dtype(i_.w), "w's zero point");
    is(i_.bias, DType::s32, "the bias");
    for (int i : {i_.x_scale, i_.w_scale, i_.y_scale}) is(i, DType::f32, "a scale");
    for (int i : {i_.x_scale, i_.x_zero, i_.y_scale, i_.y_zero})
      check(i < 0 || !ctx.has_input(i) || ctx.input(i).elements() == 1,
            "scales and zero points of x and y are single values");
    if (i_.bias >= 0 && ctx.has_input(i_.bias))
      check(ctx.shape(i_.bias) == Shape{channels}, "bias is ", ctx.shape(i_.bias), ", needed ", Shape{channels});
    QuantizationStep q;
    q.n = channels;
    q.signed_a = ctx.dtype(i_.x) == DType::s8;
    q.signed_b = ctx.dtype(i_.w) == DType::s8;
    q.b_zero_by_column = per_channel(ctx, i_.w_zero, channels, "w's zero point");
    q.b_scale_by_column = per_channel(ctx, i_.w_scale, channels, "w's scale");
    return q;
  }

  DType output_type(PlanContext& ctx) const {
    if (i_.y_scale < 0) return DType::s32;
    const DType t = ctx.has_input(i_.y_zero) ? ctx.dtype(i_.y_zero) : ctx.dtype(i_.x);
    if (!is_8_bit(t)) ctx.not_native(words("an output of type ", name_of(t)));
    return t;
  }
  static QuantizedOutput output_of(DType t) {
    return t == DType::s32 ? QuantizedOutput::s32 : t == DType::u8 ? QuantizedOutput::u8 : QuantizedOutput::s8;
  }
  float y_zero(PlanContext& ctx) const {
    if (i_.y_zero < 0 || !ctx.has_input(i_.y_zero)) return 0;
    const void* zero = ctx.require(i_.y_zero);
    return ctx.dtype(i_.y_zero) == DType::u8 ? *static_cast<const uint8_t*>(zero) : *static_cast<const int8_t*>(zero);
  }

  Scales scales(PlanContext& ctx, const QuantizationStep& q) const {
    const Operand base = ctx.scratch(static_cast<size_t>(q.n + 1) * 8);
    const Scales s{base, base.plus(4), base.plus(4 + q.n * 4), base.plus(8 + q.n * 4)};
    ctx.step("quantization", quantization_step, q,
             {in_or_null(ctx, i_.x_zero), in_or_null(ctx, i_.w_zero), in_or_null(ctx, i_.x_scale),
              in_or_null(ctx, i_.w_scale), in_or_null(ctx, i_.y_scale), s.x_zero, s.w_zero, s.row, s.column});
    return s;
  }

  // W's zero point costs a sum over each row of X: left out where it is known to be 0 in the kernel's form.
  bool has_w_zero(PlanContext& ctx) const {
    const bool is_signed = ctx.dtype(i_.w) == DType::s8;
    if (i_.w_zero < 0 || !ctx.has_input(i_.w_zero)) return !is_signed;
    const auto* zero = static_cast<const uint8_t*>(ctx.known(i_.w_zero));
    return !zero || !std::all_of(zero, zero + ctx.input(i_.w_zero).elements(),
                                 [&](uint8_t v) { return v == (is_signed ? 0 : 128); });
  }

  void plan_product(PlanContext& ctx, const Image& in, const Geometry& g, const Image& out, const ConvWeights& w,
                    Operand x, const Scales& s, Operand y, DType yt) const {
    ConvU8S8 p;
    p.g = g;
    p.batch = in.batch;
    p.groups = groups_;
    p.in_channels = in.channels;
    p.out_channels = out.channels;
    p.flip_x = ctx.dtype(i_.x) == DType::s8;
    p.output = output_of(yt);
    p.zero = y_zero(ctx);
    p.kernel = &kernel_;
    const int parts = ctx.parts_for(conv_u8s8_prepare(p));
    const Operand packed = packed_ ? ctx.address(packed_) : packed_weights(ctx, w);
    const double macs =
        static_cast<double>(in.batch * g.out_pixels() * out.channels) * static_cast<double>(g.taps() * w.in_per_group);
    ctx.step("conv_u8s8", conv_u8s8_step, p,
             {x, packed, s.x_zero, has_w_zero(ctx) ? s.w_zero : ctx.address(nullptr), in_or_null(ctx, i_.bias), s.row,
              s.column, y, ctx.scratch(conv_u8s8_scratch(p, parts))},
             parts, 2 * macs);
  }

  struct Pack {
    U8S8Panels panels;
    int64_t groups;
    bool flip;
  };
  Operand packed_weights(PlanContext& ctx, const ConvWeights& w) const {
    const int64_t taps = w.kernel[0] * w.kernel[1] * w.kernel[2];
    const U8S8Panels panels = conv_u8s8_panels(w.groups, w.out_per_group * w.groups, w.in_per_group, taps, kernel_.nr);
    const Operand packed = ctx.scratch(static_cast<size_t>(w.groups * packed_bytes(panels)));
    const StepFn pack = [](const void* params, void* const* args, int, int) {
      const auto& p = *static_cast<const Pack*>(params);
      conv_u8s8_pack(p.panels, p.groups, p.flip, args[0], args[1]);
      return Status::ok;
    };
    ctx.step("conv_pack_u8s8", pack, Pack{panels, w.groups, ctx.dtype(i_.w) == DType::u8}, {ctx.in(i_.w), packed});
    return packed;
  }

  void plan_depthwise(PlanContext& ctx, const Image& in, const Geometry& g, const Image& out, Operand x,
                      const Scales& s, Operand y, DType yt) const {
    DepthwiseBytesPack pack;
    pack.channels = in.channels;
    pack.taps = g.taps();
    pack.is_signed = ctx.dtype(i_.w) == DType::s8;
    pack.zeros = i_.w_zero >= 0 && ctx.has_input(i_.w_zero) ? ctx.input(i_.w_zero).elements() : 0;
    const Operand w = ctx.scratch(static_cast<size_t>(pack.channels * pack.taps) * 2);
    ctx.step("depthwise_pack_bytes", depthwise_bytes_pack_step, pack, {ctx.in(i_.w), in_or_null(ctx, i_.w_zero), w});
    DepthwiseBytes p;
    p.g = g;
    p.batch = in.batch;
    p.channels = in.channels;
    p.signed_x = ctx.dtype(i_.x) == DType::s8;
    p.output = output_of(yt);
    p.zero = y_zero(ctx);
    const DepthwiseBytesKernel kernel = depthwise_bytes(ctx.isa());
    const double macs = static_cast<double>(in.batch * g.out_pixels() * out.channels) * static_cast<double>(g.taps());
    ctx.step(kernel.name, kernel.run, p, {x, w, s.x_zero, in_or_null(ctx, i_.bias), s.column, y},
             ctx.parts_for(macs / 8), 2 * macs);
  }

  Inputs i_;
  WindowAttributes window_;
  const GemmU8S8& kernel_;
  int64_t groups_ = 1;
  bool channels_last_ = false;
  const void* packed_ = nullptr;
};

}  // namespace

std::unique_ptr<Op> make_conv_integer(BuildContext& b) { return std::make_unique<QuantizedConv>(b, kConvInteger); }
std::unique_ptr<Op> make_qlinear_conv(BuildContext& b) { return std::make_unique<QuantizedConv>(b, kQLinearConv); }

}  // namespace fi
