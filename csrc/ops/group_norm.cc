// SPDX-License-Identifier: Apache-2.0
// Norms per channel or group, and those that are compositions: BatchNormalization, MeanVarianceNormalization,
// LpNormalization.
#include <algorithm>

#include "csrc/ops/pointwise_step.h"
#include "csrc/ops/reduce_step.h"
#include "kernels/norm/norm.h"

namespace fi {
namespace {

template <class Build>
TileProgramBuilder program_of(int inputs, Build build) {
  TileProgramBuilder b(inputs);
  b.output(build(b));
  b.finish();
  return b;
}

void check_channels(PlanContext& ctx, int i, int64_t channels) {
  check(ctx.shape(i).rank() == 1 && ctx.shape(i)[0] == channels, "input ", i, " is ", ctx.input(i), ", needed: [",
        channels, "]");
}

void plan_group_norm(PlanContext& ctx, const Node& node) {
  const Desc x = ctx.input(0);
  const int rank = x.shape.rank();
  check(rank >= 2, node.op, " needs [batch, channels, ...], not ", x);
  const bool last = node.attributes.i("channels_last", 0) != 0;
  if (node.attributes.i("stash_type", 1) != 1) ctx.not_native("stash_type other than float32");
  const int64_t channels = x.shape[last ? rank - 1 : 1];
  const bool instance = node.op == "InstanceNormalization";
  const int64_t groups = instance ? channels : node.attributes.i("num_groups");
  check_model(groups > 0 || (instance && groups == 0), "num_groups is ", groups);
  check(groups == 0 || channels % groups == 0, channels, " channels do not divide into ", groups, " groups");
  const float epsilon = node.attributes.f("epsilon", 1e-5f);
  check_channels(ctx, 1, channels);
  check_channels(ctx, 2, channels);
  const Operand scale = float_input(ctx, 1), bias = float_input(ctx, 2), in = float_input(ctx, 0);
  const FloatOutput y = float_output(ctx, 0, x.dtype, x.shape, 0);
  if (x.elements() == 0) return;
  const int64_t space = last ? x.shape.elements(1, rank - 1) : x.shape.elements(2, rank);
  const double cost = static_cast<double>(x.elements()) * 0.8;
  if (last) {
    const LastGroupNormParams p{x.shape[0], space, groups, channels / groups, epsilon};
    const NormKernel kernel = select_last_group_norm(ctx.isa());
    ctx.step(kernel.name, kernel.run, p, {in, scale, bias, y.data}, ctx.parts_for(cost));
  } else {
    const GroupNormParams p{x.shape[0], groups, channels / groups, space, epsilon};
    const NormKernel kernel = select_group_norm(ctx.isa());
    ctx.step(kernel.name, kernel.run, p, {in, scale, bias, y.data}, ctx.parts_for(cost));
  }
  y.finish(ctx);
}

// y = (x − mean)·(scale / √(variance + epsilon)) + bias; the factor is computed once per channel.
class BatchNorm final : public Op {
 public:
  explicit BatchNorm(BuildContext& ctx)
      : training_(ctx.node.attributes.i("training_mode", 0) != 0),
        factor_(program_of(2,
                           [&](TileProgramBuilder& b) {
                             const int epsilon = b.immediate(ctx.node.attributes.f("epsilon", 1e-5f));
                             return b.op("div", 0, b.op("sqrt", b.op("add", 1, epsilon)));
                           })),
        apply_(program_of(4, [](TileProgramBuilder& b) { return b.op("add", b.op("mul", b.op("sub", 0, 1), 2), 3); })) {
  }

  void plan(PlanContext& ctx) const override {
    if (training_) ctx.not_native("training_mode=1");
    const Desc x = ctx.input(0);
    check(x.shape.rank() >= 1, "BatchNormalization needs [batch, channels, ...], not ", x);
    const int64_t channels = x.shape.rank() == 1 ? 1 : x.shape[1];
    for (int i = 1; i < 5; ++i) check_channels(ctx, i, channels);
    Shape along{channels};
    for (int d = 2; d < x.shape.rank(); ++d) along.push(1);
    const auto channel = [&](int i) { return PointwiseArg{ctx.in(i), {ctx.dtype(i), along}}; };
    const PointwiseArg factor{ctx.scratch(static_cast<size_t>(channels) * 4), {DType::f32, along}};
    const PointwiseArg of_factor[] = {channel(1), channel(4)};
    const Operand y = ctx.output(0, x.dtype, x.shape);
    add_pointwise(ctx, factor_, of_factor, std::span<const PointwiseArg>(&factor, 1));
    const PointwiseArg of_apply[] = {{ctx.in(0), x}, channel(3), factor, channel(2)};
    const PointwiseArg out{y, x};
    add_pointwise(ctx, apply_, of_apply, std::span<const PointwiseArg>(&out, 1));
  }

 private:
  bool training_;
  TileProgramBuilder factor_, apply_;
};

struct Reduced {
  bool axis[kMaxRank] = {};
  Shape shape;  // with the reduced axes kept as 1
};
Reduced reduced_over(const Shape& x, std::span<const int64_t> axes) {
  Reduced r;
  r.shape = x;
  for (int64_t a : axes) {
    const int axis = normalize_axis(a, x.rank());
    r.axis[axis] = true;
    r.shape[axis] = 1;
  }
  return r;
}

void plan_mean_variance(PlanContext& ctx, const Node& node) {
  static const TileProgramBuilder centre = program_of(2, [](TileProgramBuilder& b) { return b.op("sub", 0, 1); });
  static const TileProgramBuilder scale = program_of(
      2, [](TileProgramBuilder& b) { return b.op("div", 0, b.op("add", b.op("sqrt", 1), b.immediate(1e-9f))); });
  const Desc x = ctx.input(0);
  const Reduced r = reduced_over(x.shape, node.attributes.ints("axes", {0, 2, 3}));
  const Desc stats{DType::f32, r.shape}, whole{DType::f32, x.shape};
  const PointwiseArg in{float_input(ctx, 0), whole}, mean{ctx.scratch(stats.bytes()), stats};
  const PointwiseArg variance{ctx.scratch(stats.bytes()), stats};
  const FloatOutput out = float_output(ctx, 0, x.dtype, x.shape);
  const PointwiseArg y{out.data, whole};
  if (x.elements() == 0) return;
  add_reduction(ctx, Fold::sum, Finish::mean, x.shape, r.axis, in.data, mean.data, DType::f32);
  const PointwiseArg of_centre[] = {in, mean}, of_scale[] = {y, variance};
  add_pointwise(ctx, centre, of_centre, std::span<const PointwiseArg>(&y, 1));
  add_reduction(ctx, Fold::sum_square, Finish::mean, x.shape, r.axis, y.data, variance.data, DType::f32);
  add_pointwise(ctx, scale, of_scale, std::span<const PointwiseArg>(&y, 1));
  out.finish(ctx);
}

// x / ‖x‖_p, 0 where the norm is 0.
void plan_lp_norm(PlanContext& ctx, const Node& node) {
  static const TileProgramBuilder divide = program_of(2, [](TileProgramBuilder& b) {
    const int zero = b.immediate(0);
    return b.op("where", b.op("equal", 1, zero), zero, b.op("div", 0, 1));
  });
  const Desc x = ctx.input(0);
  const int64_t p = node.attributes.i("p", 2), axis[] = {node.attributes.i("axis", -1)};
  check_model(p == 1 || p == 2, "LpNormalization p=", p, "; needed: 1 or 2");
  const Reduced r = reduced_over(x.shape, axis);
  const Desc stats{DType::f32, r.shape}, whole{DType::f32, x.shape};
  const PointwiseArg in{float_input(ctx, 0), whole}, norm{ctx.scratch(stats.bytes()), stats};
  const FloatOutput out = float_output(ctx, 0, x.dtype, x.shape);
  if (x.elements() == 0) return;
  add_reduction(ctx, p == 1 ? Fold::sum_abs : Fold::sum_square, p == 1 ? Finish::none : Finish::root, x.shape, r.axis,
                in.data, norm.data, DType::f32);
  const PointwiseArg args[] = {in, norm}, y{out.data, whole};
  add_pointwise(ctx, divide, args, std::span<const PointwiseArg>(&y, 1));
  out.finish(ctx);
}

}  // namespace

std::unique_ptr<Op> make_group_norm(BuildContext& c) { return make_plain<plan_group_norm>(c); }
std::unique_ptr<Op> make_batch_norm(BuildContext& c) { return std::make_unique<BatchNorm>(c); }
std::unique_ptr<Op> make_mean_variance_norm(BuildContext& c) { return make_plain<plan_mean_variance>(c); }
std::unique_ptr<Op> make_lp_norm(BuildContext& c) { return make_plain<plan_lp_norm>(c); }

}  // namespace fi
