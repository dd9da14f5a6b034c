// SPDX-License-Identifier: Apache-2.0
// MaxPool, AveragePool, LpPool and the global ones, standard and channels last.
#include "kernels/pool/pool.h"

#include "csrc/ops/copy_step.h"
#include "csrc/ops/spatial.h"

namespace fi {
namespace {

bool is_channels_last(const Node& node) {
  return node.op == "NhwcMaxPool" || node.attributes.i("channels_last", 0) != 0;
}

PoolKernel choose(PlanContext& ctx, const PoolStep& q, DType type, bool indices) {
  PoolKernel kernel;
  if (q.channels_last && !indices) kernel = select_pool(ctx.isa(), q, type);
  if (!kernel.run) {
    kernel = plain_pool(q, type);
    if (kernel.run) ctx.refuse(indices ? "pool: indices are wanted" : "pool: vectorised only channels last");
  }
  if (!kernel.run) ctx.not_native(words("pooling of ", name_of(type)));
  return kernel;
}

void plan_window(PlanContext& ctx, const Node& node, PoolStep q) {
  if (ctx.shape(0).rank() > 5) ctx.not_native("more than three spatial axes");
  const Image in = image_of(ctx.shape(0), q.channels_last);
  const DType type = ctx.dtype(0);
  q.g = geometry_of(WindowAttributes(node), in, {});
  q.batch = in.batch;
  q.channels = in.channels;
  const Image out = output_image(q.g, in, in.channels);
  for (int64_t k : q.g.kernel) check_model(k >= 1, "kernel_shape has an extent of 0");
  const bool indices = ctx.wants(1);
  const PoolKernel kernel = choose(ctx, q, type, indices);
  const bool rows = q.channels_last && !indices && select_pool(ctx.isa(), q, type).run;
  q.x_pixel = q.y_pixel = in.channels;
  const Operand x = rows ? ctx.in_rows(0, q.x_pixel) : ctx.in(0);
  const Operand y = rows ? ctx.output_rows(0, type, out.shape(), q.y_pixel) : ctx.output(0, type, out.shape());
  const Operand index = indices ? ctx.output(1, DType::s64, out.shape()) : ctx.address(nullptr);
  if (out.shape().elements() == 0) return;
  ctx.step(kernel.name, kernel.run, q, {x, y, index}, ctx.parts_for(cost_of(q)));
}

void plan_max(PlanContext& ctx, const Node& node) {
  PoolStep q;
  q.kind = PoolKind::max;
  q.channels_last = is_channels_last(node);
  q.column_major = node.attributes.i("storage_order", 0) != 0;
  plan_window(ctx, node, q);
}

void plan_average(PlanContext& ctx, const Node& node) {
  PoolStep q;
  q.kind = PoolKind::average;
  q.channels_last = is_channels_last(node);
  q.count_include_pad = node.attributes.i("count_include_pad", 0) != 0;
  plan_window(ctx, node, q);
}

void plan_lp(PlanContext& ctx, const Node& node) {
  PoolStep q;
  q.kind = PoolKind::lp;
  q.channels_last = is_channels_last(node);
  q.p = node.attributes.i("p", 2);
  check_model(q.p >= 1, "p is ", q.p, ", needed at least 1");
  plan_window(ctx, node, q);
}

void plan_global(PlanContext& ctx, const Node& node, PoolKind kind) {
  const Shape& in = ctx.shape(0);
  check(in.rank() >= 2, "input ", in, " has no batch and channel axis");
  const DType type = ctx.dtype(0);
  GlobalPoolStep q;
  q.kind = kind;
  q.p = kind == PoolKind::lp ? node.attributes.i("p", 2) : 2;
  check_model(q.p >= 1, "p is ", q.p, ", needed at least 1");
  const int rank = in.rank();
  const bool last = is_channels_last(node);
  Shape out = in;
  for (int a = last ? 1 : 2; a < (last ? rank - 1 : rank); ++a) out[a] = 1;
  q.outer = last ? in[0] : in.elements(0, 2);
  q.inner = last ? in.back() : 1;
  q.n = last ? in.elements(1, rank - 1) : in.elements(2, rank);
  PoolKernel kernel = select_global_pool(ctx.isa(), q, type);
  if (!kernel.run) kernel = plain_global_pool(type);
  if (!kernel.run) ctx.not_native(words("pooling of ", name_of(type)));
  const Operand y = ctx.output(0, type, out);
  if (out.elements() == 0) return;
  ctx.step(kernel.name, kernel.run, q, {ctx.in(0), y}, ctx.parts_for(static_cast<double>(in.elements()) / 8));
}

void plan_global_average(PlanContext& ctx, const Node& node) { plan_global(ctx, node, PoolKind::average); }
void plan_global_max(PlanContext& ctx, const Node& node) { plan_global(ctx, node, PoolKind::max); }
void plan_global_lp(PlanContext& ctx, const Node& node) { plan_global(ctx, node, PoolKind::lp); }

}  // namespace

std::unique_ptr<Op> make_max_pool(BuildContext& c) { return make_plain<plan_max>(c); }
std::unique_ptr<Op> make_average_pool(BuildContext& c) { return make_plain<plan_average>(c); }
std::unique_ptr<Op> make_lp_pool(BuildContext& c) { return make_plain<plan_lp>(c); }
std::unique_ptr<Op> make_global_average_pool(BuildContext& c) { return make_plain<plan_global_average>(c); }
std::unique_ptr<Op> make_global_max_pool(BuildContext& c) { return make_plain<plan_global_max>(c); }
std::unique_ptr<Op> make_global_lp_pool(BuildContext& c) { return make_plain<plan_global_lp>(c); }

}  // namespace fi
