// SPDX-License-Identifier: Apache-2.0
// Col2Im, DeformConv, LRN.
#include "kernels/spatial/columns.h"

#include <algorithm>

#include "csrc/ops/spatial.h"

namespace fi {
namespace {

void plan_col2im(PlanContext& ctx, const Node& node) {
  if (ctx.dtype(0) != DType::f32) ctx.not_native("Col2Im is native for float32 only");
  const std::vector<int64_t> size = ctx.require_ints(1), block = ctx.require_ints(2);
  const int n = static_cast<int>(size.size());
  if (n > 3) ctx.not_native("more than three spatial axes");
  check(n >= 1 && block.size() == size.size(), "image_shape has ", n, " values, block_shape ", block.size());
  const Shape& x = ctx.shape(0);
  check(x.rank() == 3, "input ", x, ", needed [N, C * block, blocks]");
  Image im;
  im.batch = x[0];
  im.spatial = n;
  for (int a = 0; a < n; ++a) {
    check(size[a] >= 0 && block[a] >= 1, "image_shape or block_shape is out of range");
    im.size[3 - n + a] = size[a];
  }
  Col2Im q;
  q.g = geometry_of(WindowAttributes(node), im, block);
  q.batch = x[0];
  check(x[1] % q.g.taps() == 0, "input ", x, ": ", x[1], " is not a multiple of the block's ", q.g.taps(), " elements");
  check(x[2] == q.g.out_pixels(), "input ", x, " has ", x[2], " blocks, the image has room for ", q.g.out_pixels());
  q.channels = im.channels = x[1] / q.g.taps();
  const Operand y = ctx.output(0, DType::f32, im.shape());
  if (im.shape().elements() == 0) return;
  ctx.step("col2im", col2im_step, q, {ctx.in(0), y}, ctx.parts_for(static_cast<double>(x.elements()) * 8));
}

void plan_deform_conv(PlanContext& ctx, const Node& node) {
  for (int i = 0; i < ctx.n_inputs(); ++i)
    if (ctx.has_input(i) && ctx.dtype(i) != DType::f32) ctx.not_native("DeformConv is native for float32 only");
  const Shape &x = ctx.shape(0), &w = ctx.shape(1);
  if (x.rank() != 4) ctx.not_native("DeformConv over other than two spatial axes");
  const Image in = image_of(x, false);
  check(w.rank() == 4, "weight ", w, " does not fit input ", x);
  DeformConv q;
  q.g = geometry_of(WindowAttributes(node), in, {w[2], w[3]});
  q.batch = x[0];
  q.channels = x[1];
  q.out_channels = w[0];
  q.groups = node.attributes.i("group", 1);
  q.offset_groups = node.attributes.i("offset_group", 1);
  check_model(q.groups >= 1 && q.offset_groups >= 1, "group and offset_group must be positive");
  check(w[1] * q.groups == x[1] && w[0] % q.groups == 0, "weight ", w, " in ", q.groups, " groups does not fit input ",
        x);
  check(x[1] % q.offset_groups == 0, "input ", x, " does not divide into ", q.offset_groups, " offset groups");
  const int64_t points = q.offset_groups * q.g.taps();
  const Shape offset{x[0], points * 2, q.g.out[1], q.g.out[2]}, mask{x[0], points, q.g.out[1], q.g.out[2]};
  check(ctx.shape(2) == offset, "offset is ", ctx.shape(2), ", needed ", offset);
  check(!ctx.has_input(3) || ctx.shape(3) == Shape{w[0]}, "bias does not have ", w[0], " values");
  check(!ctx.has_input(4) || ctx.shape(4) == mask, "mask is not ", mask);
  const Shape out{x[0], w[0], q.g.out[1], q.g.out[2]};
  const Operand y = ctx.output(0, DType::f32, out);
  if (out.elements() == 0) return;
  const double macs = static_cast<double>(out.elements()) * static_cast<double>(w[1] * q.g.taps());
  const int parts = ctx.parts_for(macs / 4);
  ctx.step("deform_conv", deform_conv_step, q,
           {ctx.in(0), ctx.in(1), ctx.in(2), ctx.in(3), ctx.in(4), y, ctx.scratch(deform_conv_scratch(q, parts))},
           parts, 2 * macs);
}

void plan_local_norm(PlanContext& ctx, const Node& node) {
  if (ctx.dtype(0) != DType::f32) ctx.not_native("LRN is native for float32 only");
  const Shape& x = ctx.shape(0);
  check(x.rank() >= 2, "input ", x, " has no channels");
  LocalNorm q;
  q.batch = x[0];
  q.channels = x[1];
  q.pixels = x.elements(2, x.rank());
  q.size = node.attributes.i("size");
  check_model(q.size >= 1 && q.size < (int64_t{1} << 31), "size ", q.size, " is out of range");
  q.alpha = node.attributes.f("alpha", 1e-4f);
  q.beta = node.attributes.f("beta", 0.75f);
  q.bias = node.attributes.f("bias", 1.f);
  const Operand y = ctx.output(0, DType::f32, x);
  if (x.elements() == 0) return;
  const auto reach = static_cast<double>(std::min(q.size, q.channels));
  ctx.step("local_norm", local_norm_step, q, {ctx.in(0), y},
           ctx.parts_for(static_cast<double>(x.elements()) * (reach + 8) / 4));
}

}  // namespace

std::unique_ptr<Op> make_col2im(BuildContext& c) { return make_plain<plan_col2im>(c); }
std::unique_ptr<Op> make_deform_conv(BuildContext& c) { return make_plain<plan_deform_conv>(c); }
std::unique_ptr<Op> make_local_norm(BuildContext& c) { return make_plain<plan_local_norm>(c); }

}  // namespace fi
