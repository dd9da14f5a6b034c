// SPDX-License-Identifier: Apache-2.0
// Norms over the last axes: LayerNormalization, RMSNormalization, and their forms that add a residual first.
#include "kernels/norm/norm.h"

#include "csrc/ops/pointwise_step.h"

namespace fi {
namespace {

// A parameter of the row: n numbers, or one, or absent.
struct RowParameter {
  Operand data{0, 0};  // resolves to nullptr
  bool scalar = false;
};

bool is_row(const Shape& p, const Shape& x, int axis) {
  // Leading ones aside, p is x's shape from `axis` on.
  int skip = 0;
  while (skip < p.rank() && p.rank() - skip > x.rank() - axis && p[skip] == 1) ++skip;
  if (p.rank() - skip != x.rank() - axis) return false;
  for (int d = axis; d < x.rank(); ++d)
    if (p[skip + d - axis] != x[d]) return false;
  return true;
}

// False when it broadcasts in a way that only a pointwise step can do.
bool bind_parameter(PlanContext& ctx, int i, const Shape& x, int axis, RowParameter& to) {
  if (!ctx.has_input(i)) {
    to.data = Operand{0, 0};
    return true;
  }
  const Shape& p = ctx.shape(i);
  check(broadcast(x, p) == x, "input ", i, " ", p, " does not broadcast to ", x);
  if (!is_row(p, x, axis) && p.elements() != 1) return false;
  to = {float_input(ctx, i), p.elements() == 1};
  return true;
}

// y·scale (+ bias) with numpy's broadcasting, in place.
void add_affine(PlanContext& ctx, const FloatOutput& y, int scale, int bias) {
  static const auto make = [](int inputs) {
    TileProgramBuilder b(inputs);
    const int scaled = b.op("mul", 0, 1);
    b.output(inputs == 3 ? b.op("add", scaled, 2) : scaled);
    b.finish();
    return b;
  };
  static const TileProgramBuilder scaled = make(2), shifted = make(3);
  const bool both = bias >= 0 && ctx.has_input(bias);
  PointwiseArg args[3] = {{y.data, {DType::f32, y.desc.shape}}, {ctx.in(scale), ctx.input(scale)}};
  if (both) args[2] = {ctx.in(bias), ctx.input(bias)};
  add_pointwise(ctx, both ? shifted : scaled, std::span<const PointwiseArg>(args, both ? 3 : 2),
                std::span<const PointwiseArg>(args, 1));
}

Operand optional_output(PlanContext& ctx, int out, const Shape& shape) {
  return out >= 0 && ctx.wants(out) ? ctx.output(out, DType::f32, shape) : Operand{0, 0};
}

struct RowNormNode {
  bool rms;
  int axis;
  int residual = -1, xbias = -1, scale = 1, bias = -1;  // inputs
  int mean = -1, rstd = -1, sum = -1;                   // outputs
};

void plan_row_norm(PlanContext& ctx, const Node& node, const RowNormNode& form) {
  const Desc x = ctx.input(0);
  RowNormParams p{};
  p.rows = x.shape.elements(0, form.axis);
  p.n = x.shape.elements(form.axis, x.shape.rank());
  p.r_rows = 1;
  p.epsilon = node.attributes.f("epsilon", form.residual >= 0 && node.domain != "fastinfer" ? 1e-12f : 1e-5f);
  p.rms = form.rms;
  RowParameter scale, bias, xbias;
  bool inside = bind_parameter(ctx, form.scale, x.shape, form.axis, scale);
  if (form.bias >= 0) inside = bind_parameter(ctx, form.bias, x.shape, form.axis, bias) && inside;
  if (!inside) scale = bias = {};
  p.scalar_scale = scale.scalar;
  p.scalar_bias = bias.scalar;
  Operand r{0, 0};
  if (form.residual >= 0) {
    const Shape& rs = ctx.shape(form.residual);
    int skip = 0;
    while (skip < rs.rank() - 1 && rs[skip] == 1) ++skip;
    bool repeats = rs.rank() - skip <= x.shape.rank();
    for (int d = 1; repeats && d <= rs.rank() - skip; ++d) repeats = rs[rs.rank() - d] == x.shape[x.shape.rank() - d];
    check(repeats, "the residual ", rs, " does not repeat to ", x.shape);
    p.r_rows = p.n > 0 ? rs.elements() / p.n : 1;
    r = float_input(ctx, form.residual);
  }
  if (form.xbias >= 0 && ctx.has_input(form.xbias)) {
    check(
        is_row(ctx.shape(form.xbias), x.shape, form.axis) && bind_parameter(ctx, form.xbias, x.shape, form.axis, xbias),
        "the bias ", ctx.shape(form.xbias), " is no row of ", x.shape);
  }
  const Operand in = float_input(ctx, 0);
  const FloatOutput y = float_output(ctx, 0, x.dtype, x.shape, 0);
  Shape stats = x.shape;
  for (int d = form.axis; d < x.shape.rank(); ++d) stats[d] = 1;
  const Operand mean = optional_output(ctx, form.mean, stats), rstd = optional_output(ctx, form.rstd, stats);
  const bool wants_sum = form.sum >= 0 && ctx.wants(form.sum);
  const FloatOutput sum = wants_sum ? float_output(ctx, form.sum, x.dtype, x.shape) : FloatOutput{};
  if (p.rows == 0) return;
  const NormKernel kernel = select_row_norm(ctx.isa());
  const Operand args[] = {in,   r,   xbias.data, scale.data, bias.data, y.data, wants_sum ? sum.data : Operand{0, 0},
                          mean, rstd};
  ctx.step(kernel.name, kernel.run, p, std::span<const Operand>(args),
           ctx.parts_for(static_cast<double>(x.elements()) * 0.6));
  if (!inside) add_affine(ctx, y, form.scale, form.bias);
  y.finish(ctx);
  if (wants_sum) sum.finish(ctx);
}

void plan_layer_norm(PlanContext& ctx, const Node& node) {
  const bool rms = node.op != "LayerNormalization";
  check(ctx.shape(0).rank() > 0, node.op, " needs an axis; the input is a scalar");
  if (node.attributes.i("stash_type", 1) != 1) ctx.not_native("stash_type other than float32");
  const int axis = normalize_axis(node.attributes.i("axis", -1), ctx.shape(0).rank());
  RowNormNode form{rms, axis};
  form.bias = rms ? -1 : 2;
  form.mean = rms ? -1 : 1;
  form.rstd = rms ? 1 : 2;
  plan_row_norm(ctx, node, form);
}

// fastinfer: X, R, scale, bias?, xbias? → Y, sum. com.microsoft: input, skip, gamma, beta, bias → output, mean, rstd,
// sum.
void plan_skip_norm(PlanContext& ctx, const Node& node) {
  const bool ours = node.domain == "fastinfer";
  const bool rms = node.op == "SkipRMSNorm" || node.op == "SkipSimplifiedLayerNormalization";
  check(ctx.shape(0).rank() > 0, node.op, " needs an axis; the input is a scalar");
  RowNormNode form{rms, ctx.shape(0).rank() - 1};
  form.residual = 1;
  form.scale = 2;
  form.bias = rms ? -1 : 3;
  form.xbias = rms ? 3 : 4;
  form.sum = ours ? 1 : 3;
  if (!ours) {
    form.mean = 1;
    form.rstd = 2;
  }
  plan_row_norm(ctx, node, form);
}

}  // namespace

std::unique_ptr<Op> make_layer_norm(BuildContext& c) { return make_plain<plan_layer_norm>(c); }
std::unique_ptr<Op> make_skip_norm(BuildContext& c) { return make_plain<plan_skip_norm>(c); }

}  // namespace fi
