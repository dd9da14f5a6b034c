// SPDX-License-Identifier: Apache-2.0
// ConvTranspose and fastinfer::ConvTranspose.
#include <algorithm>

#include "csrc/ops/activation.h"
#include "csrc/ops/bf16.h"
#include "csrc/ops/conv.h"
#include "kernels/conv/conv_bf16.h"
#include "kernels/conv/conv_rows.h"

namespace fi {
namespace {

class ConvTranspose final : public Op {
 public:
  explicit ConvTranspose(BuildContext& b)
      : attributes_(b.node), epilogue_(read_epilogue(b.node.attributes)), gemm_(&gemm_f32(b.isa)) {
    const Attributes& a = b.node.attributes;
    channels_last_ = a.i("channels_last", 0) != 0;
    groups_ = a.i("group", 1);
    output_padding_ = a.ints("output_padding");
    output_shape_ = a.ints("output_shape");
    const Desc* w = b.constant_desc(1);
    if (allows_bf16(b.node) && w && w->dtype == DType::f32 && w->shape.rank() >= 3 && w->shape.rank() <= 5) {
      y_ = output_dtype(b.node);
      pack_bf16(b, conv_weights(w->shape, groups_, true, attributes_, kBF16Panel));
    } else {
      panels_ = ConvPanels(b, 1, groups_, true, attributes_);
    }
  }

  void plan(PlanContext& ctx) const override {
    for (int i = 0; i < ctx.n_inputs(); ++i)
      if (ctx.has_input(i) && ctx.dtype(i) != DType::f32 && !(i == 0 && bf16_ && ctx.dtype(0) == DType::bf16))
        ctx.not_native("ConvTranspose is native for float32 only");
    if (ctx.shape(0).rank() > 5) ctx.not_native("more than three spatial axes");
    const Image in = image_of(ctx.shape(0), channels_last_);
    const Shape& ws = ctx.shape(1);
    check(ws.rank() == in.spatial + 2, "weight ", ws, " does not fit input ", ctx.shape(0));
    const ConvWeights w = conv_weights(ws, groups_, true, attributes_, gemm_->nr);
    check(in.channels == ws[0], "input ", ctx.shape(0), " has ", in.channels, " channels, weight ", ws, " needs ",
          ws[0]);
    const int64_t out_channels = w.out_per_group * groups_;
    check(!ctx.has_input(2) || ctx.shape(2) == Shape{out_channels}, "bias is ",
          ctx.has_input(2) ? ctx.shape(2) : Shape{}, ", needed ", Shape{out_channels});
    ConvF32 s;
    s.g = geometry(in, ws);
    s.batch = in.batch;
    s.groups = groups_;
    s.in_channels = s.pixel_floats = in.channels;
    s.out_channels = out_channels;
    s.k = w.in_per_group;
    s.transposed = true;
    s.kernel = gemm_;
    s.epilogue = epilogue_;
    const Image image = output_image(s.g, in, out_channels);
    const LayoutOutput out(ctx, image, y_, !bf16_);
    s.y_pixel = out.row;
    if (image.shape().elements() == 0) return;
    if (bf16_) {
      plan_bf16(ctx, s, in, out.y);
      return out.finish(ctx);
    }
    const Operand x =
        channels_last_ ? ctx.in_rows(0, s.pixel_floats) : channels_last_form(ctx, in, ctx.in(0), DType::f32);
    const Operand packed = panels_.operand(ctx, 1, w);
    const double macs =
        static_cast<double>(in.batch * in.pixels() * out_channels) * static_cast<double>(s.g.taps() * w.in_per_group);
    if (groups_ == 1 && conv_rows_blocks(s.g, in.channels, out_channels)) {
      plan_blocks(ctx, s, x, packed, out.y, 2 * macs);
      return out.finish(ctx);
    }
    const int parts = ctx.parts_for(conv_f32_prepare(s));
    ctx.step("conv_transpose_f32", conv_f32_step, s,
             {x, packed, ctx.in(2), ctx.address(nullptr), out.y, ctx.scratch(conv_f32_scratch(s, parts))}, parts,
             2 * macs);
    out.finish(ctx);
  }

 private:
  static void plan_blocks(PlanContext& ctx, const ConvF32& f32, Operand x, Operand w, Operand y, double flops) {
    ConvRows s;
    s.g = f32.g;
    s.blocks = true;
    s.batch = f32.batch;
    s.in_channels = f32.in_channels;
    s.out_channels = f32.out_channels;
    s.x_pixel = f32.pixel_floats;
    s.y_pixel = f32.y_pixel;
    s.kernel = f32.kernel;
    s.epilogue = f32.epilogue;
    const int parts = ctx.parts_for(conv_rows_prepare(s));
    ctx.step("conv_transpose_f32", conv_rows_step, s,
             {x, w, ctx.in(2), ctx.address(nullptr), y, ctx.scratch(conv_rows_scratch(s, parts))}, parts, flops);
  }

  void pack_bf16(BuildContext& b, const ConvWeights& w) {
    Packing packing;
    packing.layout = words("conv_transpose_bf16_g", w.groups);
    for (int a = 0; a < 3; ++a) packing.layout += words(":", w.stride[a], "/", w.dilation[a]);
    packing.bytes = static_cast<size_t>(conv_bf16_packed_elements(w)) * 2;
    packing.pack = [=](const Tensor& dense, void* packed) {
      conv_bf16_pack(w, dense.as<float>(), static_cast<uint16_t*>(packed));
    };
    bf16_ = b.packed(1, packing);
  }

  void plan_bf16(PlanContext& ctx, const ConvF32& f32, const Image& in, Operand y) const {
    ConvBF16 s;
    s.g = f32.g;
    s.batch = f32.batch;
    s.groups = f32.groups;
    s.in_channels = s.pixel_elements = f32.in_channels;
    s.out_channels = f32.out_channels;
    s.k = f32.k;
    s.transposed = true;
    s.y_bf16 = y_ == DType::bf16;
    s.kernel = &gemm_bf16(ctx.isa());
    s.epilogue = epilogue_;
    const DType t = ctx.dtype(0);
    const Operand x = rounded(ctx, t, channels_last_form(ctx, in, ctx.in(0), t), in.batch * in.pixels() * in.channels);
    const int parts = ctx.parts_for(conv_bf16_prepare(s));
    const double macs =
        static_cast<double>(in.batch * in.pixels() * s.out_channels) * static_cast<double>(s.g.taps() * s.k);
    ctx.step("conv_transpose_bf16", conv_bf16_step, s,
             {x, ctx.address(bf16_), ctx.in(2), ctx.address(nullptr), y, ctx.scratch(conv_bf16_scratch(s, parts))},
             parts, 2 * macs);
  }

  Geometry geometry(const Image& in, const Shape& w) const {
    const int n = in.spatial;
    const std::vector<int64_t> kernel(w.begin() + 2, w.end());
    WindowAttributes a = attributes_;
    if (!output_shape_.empty() || a.auto_pad != "NOTSET") a.pads.clear();
    a.auto_pad = "NOTSET";
    // The window over an image that it surely fits: checks the attributes and fills all but the extents.
    Image large = in;
    for (int64_t& extent : large.size) extent = int64_t{1} << 40;
    Geometry g = geometry_of(a, large, kernel);
    std::vector<int64_t> shape = output_shape_;
    if (static_cast<int>(shape.size()) == n + 2) shape.erase(shape.begin(), shape.begin() + 2);
    check_model(shape.empty() || static_cast<int>(shape.size()) == n, "output_shape has ", shape.size(),
                " values, needed ", n);
    check_model(output_padding_.empty() || static_cast<int>(output_padding_.size()) == n, "output_padding has ",
                output_padding_.size(), " values, needed ", n);
    const bool same = attributes_.auto_pad == "SAME_UPPER" || attributes_.auto_pad == "SAME_LOWER";
    for (int axis = 0; axis < 3; ++axis) {
      const int i = axis - (3 - n);
      g.in[axis] = in.size[axis];
      const int64_t extra = i >= 0 && !output_padding_.empty() ? output_padding_[i] : 0;
      check_model(extra >= 0 && extra < (int64_t{1} << 31), "output_padding ", extra, " is out of range");
      int64_t full = (g.in[axis] - 1) * g.stride[axis] + (g.kernel[axis] - 1) * g.dilation[axis] + 1 + extra;
      if (g.in[axis] == 0) full = 0;
      if (i >= 0 && (same || !shape.empty())) {
        g.out[axis] = shape.empty() ? g.in[axis] * g.stride[axis] : shape[i];
        const int64_t total = std::max<int64_t>(0, full - g.out[axis]);
        g.pad[axis] = attributes_.auto_pad == "SAME_UPPER" ? total / 2 : total - total / 2;
      } else {
        g.out[axis] = full - g.pad[axis] - g.pad_end[axis];
      }
      check(g.out[axis] >= 0 && g.out[axis] < (int64_t{1} << 40), "output extent ", g.out[axis],
            " of a transposed convolution with pads ", g.pad[axis], " and ", g.pad_end[axis], " is out of range");
    }
    return g;
  }

  WindowAttributes attributes_;
  Epilogue epilogue_;
  const GemmF32* gemm_;
  bool channels_last_ = false;
  int64_t groups_ = 1;
  std::vector<int64_t> output_padding_, output_shape_;
  ConvPanels panels_;
  const void* bf16_ = nullptr;  // the weights, if they are to be bfloat16
  DType y_ = DType::f32;
};

}  // namespace

std::unique_ptr<Op> make_conv_transpose(BuildContext& b) { return std::make_unique<ConvTranspose>(b); }

}  // namespace fi
