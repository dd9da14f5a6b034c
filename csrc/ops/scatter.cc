// SPDX-License-Identifier: Apache-2.0
#include "kernels/move/scatter.h"

#include "csrc/ops/index_input.h"

namespace fi {
namespace {

Reduction reduction_of(PlanContext& ctx, const Node& node) {
  const std::string name = node.attributes.s("reduction", "none");
  const Reduction r = name == "none"  ? Reduction::none
                      : name == "add" ? Reduction::add
                      : name == "mul" ? Reduction::mul
                      : name == "min" ? Reduction::min
                                      : Reduction::max;
  check_model(r != Reduction::max || name == "max", "reduction '", name, "', known: none, add, mul, min, max");
  check(ctx.dtype(2) == ctx.dtype(0), "updates are ", ctx.input(2), ", data is ", ctx.input(0));
  if (!can_reduce(ctx.dtype(0), r)) ctx.not_native(words("reduction ", name, " of ", name_of(ctx.dtype(0))));
  return r;
}

void plan_scatter_elements(PlanContext& ctx, const Node& node) {
  const Desc data = ctx.input(0);
  const Shape& in = data.shape;
  const Shape indices = ctx.shape(1);
  const int axis = normalize_axis(node.attributes.i("axis", 0), in.rank());
  check(indices.rank() == in.rank(), "indices ", indices, " and data ", in, " differ in rank");
  check(ctx.shape(2) == indices, "updates ", ctx.shape(2), " and indices ", indices, " differ in shape");
  ScatterElements p{};
  p.rank = in.rank();
  p.axis = axis;
  p.dtype = data.dtype;
  p.reduction = reduction_of(ctx, node);
  p.index = index_type(ctx, 1);
  p.bytes = static_cast<int64_t>(data.bytes());
  p.extent = in[axis];
  const Shape stride = strides_of(in);
  for (int k = 0; k < p.rank; ++k) {
    check(k == axis || indices[k] <= in[k], "indices ", indices, " reach beyond data ", in, " on axis ", k);
    p.shape[k] = indices[k];
    p.stride[k] = stride[k];
  }
  const Operand y = ctx.output_over(0, data.dtype, in, 0);
  ctx.step("scatter_elements", scatter_elements, p, {ctx.in(0), ctx.in(1), ctx.in(2), y});
}

void plan_scatter_nd(PlanContext& ctx, const Node& node) {
  const Desc data = ctx.input(0);
  const Shape& in = data.shape;
  const Shape indices = ctx.shape(1);
  check(indices.rank() >= 1, "indices are a scalar");
  const int64_t depth = indices.back();
  check(depth >= 0 && depth <= in.rank(), "indices ", indices, " address ", depth, " axes of data ", in);
  ScatterND p{};
  p.depth = static_cast<int32_t>(depth);
  Shape updates(indices.begin(), indices.end() - 1);
  for (int k = p.depth; k < in.rank(); ++k) updates.push(in[k]);
  check(ctx.shape(2) == updates, "updates are ", ctx.shape(2), ", needed for data ", in, " and indices ", indices, ": ",
        updates);
  p.dtype = data.dtype;
  p.reduction = reduction_of(ctx, node);
  p.index = index_type(ctx, 1);
  p.bytes = static_cast<int64_t>(data.bytes());
  p.count = indices.elements(0, indices.rank() - 1);
  p.row = in.elements(p.depth, in.rank());
  const Shape stride = strides_of(in);
  for (int d = 0; d < p.depth; ++d) {
    p.extent[d] = in[d];
    p.stride[d] = stride[d];
  }
  const Operand y = ctx.output_over(0, data.dtype, in, 0);
  ctx.step("scatter_nd", scatter_nd, p, {ctx.in(0), ctx.in(1), ctx.in(2), y});
}

void plan_tensor_scatter(PlanContext& ctx, const Node& node) {
  const Desc cache = ctx.input(0);
  const Shape& in = cache.shape;
  const Shape update = ctx.shape(1);
  const int axis = normalize_axis(node.attributes.i("axis", -2), in.rank());
  const std::string mode = node.attributes.s("mode", "linear");
  check_model(mode == "linear" || mode == "circular", "mode '", mode, "', known: linear, circular");
  check_model(axis > 0, "axis ", axis, " is the batch axis");
  bool fits = update.rank() == in.rank() && ctx.dtype(1) == cache.dtype;
  for (int k = 0; fits && k < in.rank(); ++k) fits = k == axis ? update[k] <= in[k] : update[k] == in[k];
  check(fits, "update ", ctx.input(1), " does not fit cache ", cache, " along axis ", axis);
  if (ctx.has_input(2))
    check(ctx.shape(2) == Shape{in[0]}, "write_indices are ", ctx.shape(2), ", needed: [", in[0], "]");
  const ScatterRows p{mode == "circular",
                      ctx.has_input(2) ? index_type(ctx, 2) : IndexType::s64,
                      static_cast<int64_t>(cache.bytes()),
                      in[0],
                      in.elements(1, axis),
                      update[axis],
                      in[axis],
                      in.elements(axis + 1, in.rank()) * static_cast<int64_t>(size_of(cache.dtype))};
  const Operand y = ctx.output_over(0, cache.dtype, in, 0);
  if (cache.bytes() > 0) ctx.step("scatter_rows", scatter_rows, p, {ctx.in(0), ctx.in(1), ctx.in(2), y});
}

}  // namespace

std::unique_ptr<Op> make_scatter_elements(BuildContext& c) { return make_plain<plan_scatter_elements>(c); }
std::unique_ptr<Op> make_scatter_nd(BuildContext& c) { return make_plain<plan_scatter_nd>(c); }
std::unique_ptr<Op> make_tensor_scatter(BuildContext& c) { return make_plain<plan_tensor_scatter>(c); }

}  // namespace fi
