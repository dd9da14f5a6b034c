// SPDX-License-Identifier: Apache-2.0
#include "csrc/ops/conv.h"
#include "csrc/ops/copy_step.h"
#include "kernels/move/transpose.h"

namespace fi {
namespace {

struct PackParams {
  const GemmF32* kernel;
  ConvWeights w;
};
Status pack_step(const void* params, void* const* args, int, int) {
  const auto& p = *static_cast<const PackParams*>(params);
  conv_f32_pack(*p.kernel, p.w, static_cast<const float*>(args[0]), static_cast<float*>(args[1]));
  return Status::ok;
}

std::string layout_name(const ConvWeights& w) {
  std::string name = words(w.transposed ? "conv_transpose_f32_nr" : "conv_f32_nr", w.nr, "_g", w.groups);
  if (w.transposed)
    for (int a = 0; a < 3; ++a) name += words(":", w.stride[a], "/", w.dilation[a]);
  return name;
}

// The nr in a name that layout_name made.
int nr_of(const std::string& layout) {
  const size_t at = layout.find("_nr");
  const int nr = at == std::string::npos ? 0 : std::atoi(layout.c_str() + at + 3);
  check_model(nr > 0 && nr % 16 == 0 && nr <= 1024, "layout '", layout, "' is not of convolution weights");
  return nr;
}

}  // namespace

ConvWeights conv_weights(const Shape& s, int64_t groups, bool transposed, const WindowAttributes& a, int nr) {
  check(s.rank() >= 3 && s.rank() <= 5, "weight ", s, " has rank ", s.rank(), ", needed 3 to 5");
  check_model(groups >= 1, "group ", groups, " is not positive");
  check_model(s[0] % groups == 0, "weight ", s, " does not divide into ", groups, " groups");
  ConvWeights w;
  w.groups = groups;
  w.transposed = transposed;
  w.nr = nr;
  w.in_per_group = transposed ? s[0] / groups : s[1];
  w.out_per_group = transposed ? s[1] : s[0] / groups;
  const int n = s.rank() - 2, lead = 3 - n;
  auto value = [&](const std::vector<int64_t>& list, int axis) {
    const int i = axis - lead;
    return i >= 0 && i < static_cast<int>(list.size()) ? list[i] : 1;
  };
  for (int i = 0; i < 3; ++i) {
    w.kernel[i] = i < lead ? 1 : s[2 + i - lead];
    w.stride[i] = value(a.strides, i);
    w.dilation[i] = value(a.dilations, i);
    check_model(w.stride[i] >= 1 && w.dilation[i] >= 1, "strides and dilations must be positive");
  }
  check_model(!transposed || (w.stride[0] <= 4096 && w.stride[1] <= 4096 && w.stride[2] <= 4096 &&
                              w.stride[0] * w.stride[1] * w.stride[2] <= 65536),
              "strides of a transposed convolution with a product above 65536 are not supported");
  return w;
}

ConvPanels::ConvPanels(BuildContext& b, int input, int64_t groups, bool transposed, const WindowAttributes& a) {
  const Desc* d = b.constant_desc(input);
  if (!d || d->dtype != DType::f32) return;
  const GemmF32& kernel = gemm_f32(b.isa);
  const ConvWeights w = conv_weights(d->shape, groups, transposed, a, kernel.nr);
  Packing packing;
  packing.layout = layout_name(w);
  packing.bytes = static_cast<size_t>(conv_packed_floats(w)) * 4;
  packing.pack = [&kernel, w](const Tensor& dense, void* packed) {
    conv_f32_pack(kernel, w, dense.as<float>(), static_cast<float*>(packed));
  };
  packing.unpack = [w](const std::string& layout, const void* packed, void* dense) {
    ConvWeights from = w;
    from.nr = nr_of(layout);
    conv_f32_unpack(from, static_cast<const float*>(packed), static_cast<float*>(dense));
  };
  packed_ = b.packed(input, packing);
}

Operand ConvPanels::operand(PlanContext& ctx, int input, const ConvWeights& w) const {
  if (packed_) return ctx.address(packed_);
  const int64_t floats = conv_packed_floats(w);
  const Operand packed = ctx.scratch(static_cast<size_t>(floats) * 4);
  ctx.step("conv_pack_f32", pack_step, PackParams{&gemm_f32(ctx.isa()), w}, {ctx.in(input), packed});
  return packed;
}

Operand channels_last_form(PlanContext& ctx, const Image& im, Operand x, DType dtype) {
  if (im.channels_last || im.channels == 1 || im.pixels() == 1 || im.batch * im.channels * im.pixels() == 0) return x;
  const auto unit = static_cast<int64_t>(size_of(dtype));
  const Operand y = ctx.scratch(static_cast<size_t>(im.batch * im.channels * im.pixels() * unit));
  add_copy(ctx, transpose_copy(im.batch, im.channels, im.pixels(), unit), x, y);
  return y;
}

LayoutOutput::LayoutOutput(PlanContext& ctx, const Image& im, DType t, bool rows)
    : image(im), dtype(t), row(im.channels) {
  final_y = y = rows && im.channels_last ? ctx.output_rows(0, t, im.shape(), row) : ctx.output(0, t, im.shape());
  const int64_t elements = im.batch * im.channels * im.pixels();
  if (!im.channels_last && im.channels != 1 && im.pixels() != 1 && elements > 0)
    y = ctx.scratch(static_cast<size_t>(elements) * size_of(t));
}

void LayoutOutput::finish(PlanContext& ctx) const {
  if (y.base == final_y.base && y.offset == final_y.offset) return;
  add_copy(ctx, transpose_copy(image.batch, image.pixels(), image.channels, static_cast<int64_t>(size_of(dtype))), y,
           final_y);
}

}  // namespace fi
