// SPDX-License-Identifier: Apache-2.0
// ConvInteger, QLinearConv (standard and com.microsoft's, which may be channels last) and fastinfer's QConv.
#include "kernels/conv/qconv.h"

#include <algorithm>
#include <cstdio>

#include "csrc/ops/conv.h"
#include "csrc/ops/requantize.h"
#include "kernels/depthwise/depthwise_bytes.h"

namespace fi {
namespace {

constexpr QuantizedInputs kConvInteger{0, 1, -1, -1, 2, 3};

class QuantizedConv final : public Op {
 public:
  QuantizedConv(BuildContext& b, const QuantizedInputs& inputs, QuantizedOutput unscaled)
      : node_(b.node),
        i_(inputs),
        unscaled_(unscaled),
        window_(b.node),
        kernel_(gemm_u8s8(b.isa)),
        depthwise_(depthwise_u8s8(b.isa)),
        quantization_(b, inputs) {
    groups_ = b.node.attributes.i("group", 1);
    channels_last_ = b.node.attributes.i("channels_last", 0) != 0;
    const Desc* d = b.constant_desc(i_.b);
    if (!d || !is_8_bit(d->dtype)) return;
    const ConvWeights w = conv_weights(d->shape, groups_, false, window_, kernel_.nr);
    if (!is_depthwise(w))
      packed_ = b.packed(i_.b, packing(w, *d));
    else if (d->dtype == DType::s8 && no_zero(b) && w.kernel[0] * w.kernel[1] <= kDepthwiseU8S8Rows)
      packed_ = b.packed(i_.b, depthwise_packing(w));
  }

  void plan(PlanContext& ctx) const override {
    const DType xt = ctx.dtype(i_.a), wt = ctx.dtype(i_.b);
    if (!is_8_bit(xt) || !is_8_bit(wt)) ctx.not_native(words("convolution of ", name_of(xt), " and ", name_of(wt)));
    if (ctx.shape(i_.a).rank() > 5) ctx.not_native("more than three spatial axes");
    const Image in = image_of(ctx.shape(i_.a), channels_last_);
    const Shape& ws = ctx.shape(i_.b);
    check(ws.rank() == in.spatial + 2, "weight ", ws, " does not fit input ", ctx.shape(i_.a));
    const ConvWeights w = conv_weights(ws, groups_, false, window_, kernel_.nr);
    check(in.channels == ws[1] * groups_, "input ", ctx.shape(i_.a), " has ", in.channels, " channels, weight ", ws,
          " in ", groups_, " groups needs ", ws[1] * groups_);
    const Geometry g = geometry_of(window_, in, std::vector<int64_t>(ws.begin() + 2, ws.end()));
    const Image image = output_image(g, in, ws[0]);
    const QuantizationStep q = quantization(ctx, image.channels);
    const QuantizedOutput output = quantized_output(ctx, i_, unscaled_);
    const Requantize requantized =
        is_byte(output) ? read_requantize(ctx, node_, i_, output, image.shape()) : Requantize{};
    const LayoutOutput out(ctx, image, dtype_of(output));
    if (image.shape().elements() == 0) return;
    const Operand x = channels_last_form(ctx, in, ctx.in(i_.a), xt);
    Operand residual{0, 0};
    if (given(ctx, i_.residual)) residual = channels_last_form(ctx, image, ctx.in(i_.residual), ctx.dtype(i_.residual));
    const Bound bound{in, g, image, x, quantization_.plan(ctx, q), out.y, residual, output, requantized};
    if (is_depthwise(w))
      plan_depthwise(ctx, bound);
    else
      plan_product(ctx, bound, w);
    out.finish(ctx);
  }

 private:
  struct Bound {
    const Image& in;
    const Geometry& g;
    const Image& out;
    Operand x;
    QuantizedScales scales;
    Operand y, residual;
    QuantizedOutput output;
    Requantize q;
  };

  static bool is_depthwise(const ConvWeights& w) { return w.groups > 1 && w.in_per_group == 1 && w.out_per_group == 1; }

  // Width of a kernel row whose taps become one, 0: none do. Seen from the weights alone, so that they are packed once.
  int64_t merged_width(const ConvWeights& w) const {
    Geometry g{};
    for (int a = 0; a < 3; ++a) {
      g.kernel[a] = w.kernel[a];
      g.dilation[a] = w.dilation[a];
    }
    const bool negative = std::any_of(window_.pads.begin(), window_.pads.end(), [](int64_t p) { return p < 0; });
    return !negative && can_merge_taps(g, w.groups, w.in_per_group) ? w.kernel[2] : 0;
  }

  struct Pack {
    U8S8Panels panels;
    int64_t groups, width;
    bool flip;
    void pack(const void* w, void* packed) const {
      if (width)
        conv_u8s8_pack_merged(panels, width, flip, w, packed);
      else
        conv_u8s8_pack(panels, groups, flip, w, packed);
    }
    void unpack(int nr, const void* packed, void* w) const {
      U8S8Panels from = panels;
      from.nr = nr;
      if (width)
        conv_u8s8_unpack_merged(from, width, flip, packed, w);
      else
        conv_u8s8_unpack(from, groups, flip, packed, w);
    }
  };
  Pack pack_of(const ConvWeights& w, DType type) const {
    const int64_t width = merged_width(w), taps = w.kernel[0] * w.kernel[1] * w.kernel[2];
    return {conv_u8s8_panels(w.groups, w.out_per_group * w.groups, w.in_per_group * std::max<int64_t>(1, width),
                             width ? taps / width : taps, kernel_.nr),
            w.groups, width, type == DType::u8};
  }

  // W's zero point is constant and 0.
  bool no_zero(BuildContext& b) const {
    if (i_.b_zero < 0 || !b.has_input(i_.b_zero)) return true;
    const Tensor* zero = b.constant(i_.b_zero);
    const auto* values = zero ? static_cast<const uint8_t*>(zero->data) : nullptr;
    return zero && std::all_of(values, values + zero->desc.elements(), [](uint8_t v) { return v == 0; });
  }

  Packing depthwise_packing(const ConvWeights& w) const {
    const DepthwiseU8S8Pack p{w.groups, w.kernel[0] * w.kernel[1], w.kernel[2], depthwise_.block};
    const std::string rest = words("_c", p.channels, "_r", p.rows, "_w", p.width);
    Packing how;
    how.layout = words("depthwise_u8s8_nr", p.block, rest);
    how.bytes = packed_bytes(p);
    how.pack = [=](const Tensor& dense, void* packed) {
      depthwise_u8s8_pack(p, dense.as<int8_t>(), static_cast<int8_t*>(packed));
    };
    how.unpack = [=](const std::string& layout, const void* packed, void* dense) {
      DepthwiseU8S8Pack from = p;
      check_model(std::sscanf(layout.c_str(), "depthwise_u8s8_nr%d", &from.block) == 1 && from.block > 0 &&
                      from.block <= 64 && from.block % 16 == 0 &&
                      layout == words("depthwise_u8s8_nr", from.block, rest),
                  "packed layout '", layout, "' is not one of depthwise_u8s8_nr*", rest);
      depthwise_u8s8_unpack(from, static_cast<const int8_t*>(packed), static_cast<int8_t*>(dense));
    };
    return how;
  }

  Packing packing(const ConvWeights& w, const Desc& d) const {
    const Pack p = pack_of(w, d.dtype);
    const std::string rest = words("_", name_of(d.dtype), "_g", p.groups, "_w", p.width);
    Packing how;
    how.layout = words("conv_u8s8_nr", kernel_.nr, rest);
    how.bytes = static_cast<size_t>(p.groups * packed_bytes(p.panels));
    how.pack = [=](const Tensor& dense, void* packed) { p.pack(dense.data, packed); };
    how.unpack = [=](const std::string& layout, const void* packed, void* dense) {
      int nr = 0;
      check_model(std::sscanf(layout.c_str(), "conv_u8s8_nr%d", &nr) == 1 && nr > 0 && nr % 16 == 0 &&
                      layout == words("conv_u8s8_nr", nr, rest),
                  "packed layout '", layout, "' is not one of conv_u8s8_nr*", rest);
      p.unpack(nr, packed, dense);
    };
    return how;
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
    is(i_.a_zero, ctx.dtype(i_.a), "x's zero point");
    is(i_.b_zero, ctx.dtype(i_.b), "w's zero point");
    is(i_.int_bias, DType::s32, "the bias");
    for (int i : {i_.a_scale, i_.b_scale, i_.y_scale}) is(i, DType::f32, "a scale");
    for (int i : {i_.a_scale, i_.a_zero, i_.y_scale, i_.y_zero})
      check(i < 0 || !ctx.has_input(i) || ctx.input(i).elements() == 1,
            "scales and zero points of x and y are single values");
    if (i_.int_bias >= 0 && ctx.has_input(i_.int_bias))
      check(ctx.shape(i_.int_bias) == Shape{channels}, "bias is ", ctx.shape(i_.int_bias), ", needed ",
            Shape{channels});
    QuantizationStep q;
    q.n = channels;
    q.signed_a = ctx.dtype(i_.a) == DType::s8;
    q.signed_b = ctx.dtype(i_.b) == DType::s8;
    q.b_zero_by_column = per_channel(ctx, i_.b_zero, channels, "w's zero point");
    q.b_scale_by_column = per_channel(ctx, i_.b_scale, channels, "w's scale");
    return q;
  }

  void plan_product(PlanContext& ctx, const Bound& b, const ConvWeights& w) const {
    ConvU8S8 p;
    p.g = b.g;
    p.batch = b.in.batch;
    p.groups = groups_;
    p.in_channels = b.in.channels;
    p.out_channels = b.out.channels;
    p.flip_x = ctx.dtype(i_.a) == DType::s8;
    p.output = b.output;
    p.q = b.q;
    p.kernel = &kernel_;
    Operand x = b.x;
    if (merged_width(w)) {
      const PadBytes pad{b.g, p.batch, p.in_channels, p.flip_x};
      x = ctx.scratch(padded_bytes(pad));
      ctx.step("pad_bytes", pad_bytes_step, pad, {b.x, b.scales.a_zero, x},
               ctx.parts_for(static_cast<double>(padded_bytes(pad)) / 16));
      p = merge_taps(p);
    }
    const int parts = ctx.parts_for(conv_u8s8_prepare(p));
    const Operand packed = packed_ ? ctx.address(packed_) : packed_weights(ctx, w);
    const double macs = static_cast<double>(p.batch * b.g.out_pixels() * b.out.channels) *
                        static_cast<double>(b.g.taps() * w.in_per_group);
    ctx.step("conv_u8s8", conv_u8s8_step, p,
             {x, packed, b.scales.a_zero, b_has_zero(ctx, i_) ? b.scales.b_zero : Operand{0, 0},
              in_or_null(ctx, i_.int_bias), b.scales.row, b.scales.column, b.y, b.residual,
              ctx.scratch(conv_u8s8_scratch(p, parts))},
             parts, 2 * macs);
  }

  Operand packed_weights(PlanContext& ctx, const ConvWeights& w) const {
    const Pack p = pack_of(w, ctx.dtype(i_.b));
    const Operand packed = ctx.scratch(static_cast<size_t>(p.groups * packed_bytes(p.panels)));
    const StepFn pack = [](const void* params, void* const* args, int, int) {
      static_cast<const Pack*>(params)->pack(args[0], args[1]);
      return Status::ok;
    };
    ctx.step("conv_pack_u8s8", pack, p, {ctx.in(i_.b), packed});
    return packed;
  }

  void plan_depthwise(PlanContext& ctx, const Bound& b) const {
    DepthwiseBytes p;
    p.g = b.g;
    p.batch = b.in.batch;
    p.channels = b.in.channels;
    p.signed_x = ctx.dtype(i_.a) == DType::s8;
    p.output = b.output;
    p.q = b.q;
    const double macs = static_cast<double>(p.batch * b.g.out_pixels() * p.channels) * static_cast<double>(b.g.taps());
    const Operand w = packed_ ? ctx.address(packed_) : depthwise_weights(ctx, b);
    const DepthwiseBytesKernel any = depthwise_bytes(ctx.isa());
    if (!packed_) ctx.refuse("depthwise_u8s8: needs constant weights of int8 with zero point 0, at most 8 kernel rows");
    ctx.step(packed_ ? depthwise_.name : any.name, packed_ ? depthwise_.run : any.run, p,
             {b.x, w, b.scales.a_zero, in_or_null(ctx, i_.int_bias), b.scales.column, b.y, b.residual},
             ctx.parts_for(macs / (packed_ ? 64 : 8)), 2 * macs);
  }

  Operand depthwise_weights(PlanContext& ctx, const Bound& b) const {
    DepthwiseBytesPack pack;
    pack.channels = b.in.channels;
    pack.taps = b.g.taps();
    pack.is_signed = ctx.dtype(i_.b) == DType::s8;
    pack.zeros = given(ctx, i_.b_zero) ? ctx.input(i_.b_zero).elements() : 0;
    const Operand w = ctx.scratch(static_cast<size_t>(pack.channels * pack.taps) * 2);
    ctx.step("depthwise_pack_bytes", depthwise_bytes_pack_step, pack, {ctx.in(i_.b), in_or_null(ctx, i_.b_zero), w});
    return w;
  }

  const Node& node_;
  QuantizedInputs i_;
  QuantizedOutput unscaled_;  // without y's scale
  WindowAttributes window_;
  const GemmU8S8& kernel_;
  DepthwiseU8S8Kernel depthwise_;
  Quantization quantization_;
  int64_t groups_ = 1;
  bool channels_last_ = false;
  const void* packed_ = nullptr;
};

}  // namespace

std::unique_ptr<Op> make_conv_integer(BuildContext& b) {
  return std::make_unique<QuantizedConv>(b, kConvInteger, QuantizedOutput::s32);
}
std::unique_ptr<Op> make_qlinear_conv(BuildContext& b) {
  return std::make_unique<QuantizedConv>(b, kQLinear, QuantizedOutput::f32);
}
std::unique_ptr<Op> make_qconv(BuildContext& b) {
  return std::make_unique<QuantizedConv>(b, kFused, QuantizedOutput::f32);
}

}  // namespace fi
