// SPDX-License-Identifier: Apache-2.0
#include "kernels/move/gather.h"

#include "csrc/ops/index_input.h"

namespace fi {
namespace {

void plan_gather(PlanContext& ctx, const Node& node) {
  const Shape in = ctx.shape(0), indices = ctx.shape(1);
  const DType t = ctx.dtype(0);
  const int axis = normalize_axis(node.attributes.i("axis", 0), in.rank());
  Shape out(in.begin(), in.begin() + axis);
  for (int64_t d : indices) out.push(d);
  for (int k = axis + 1; k < in.rank(); ++k) out.push(in[k]);
  const Operand y = ctx.output(0, t, out);
  const int64_t row = in.elements(axis + 1, in.rank()) * static_cast<int64_t>(size_of(t));
  const Gather p{in.elements(0, axis), indices.elements(), in[axis], row, index_type(ctx, 1)};
  // An empty result still has its indices checked when only the rows are empty.
  if (p.outer == 0 || p.count == 0) return;
  ctx.step("gather", gather, p, {ctx.in(0), ctx.in(1), y},
           ctx.parts_for(double(p.outer * p.count) * (8 + double(row) / 16)));
}

void plan_gather_elements(PlanContext& ctx, const Node& node) {
  const Shape in = ctx.shape(0), indices = ctx.shape(1);
  const DType t = ctx.dtype(0);
  const int axis = normalize_axis(node.attributes.i("axis", 0), in.rank());
  check(indices.rank() == in.rank(), "indices ", indices, " and data ", in, " differ in rank");
  GatherElements p{};
  p.rank = in.rank();
  p.axis = axis;
  p.unit = static_cast<int64_t>(size_of(t));
  p.extent = in[axis];
  p.index = index_type(ctx, 1);
  const Shape stride = strides_of(in);
  for (int k = 0; k < p.rank; ++k) {
    check(k == axis || indices[k] <= in[k], "indices ", indices, " reach beyond data ", in, " on axis ", k);
    p.shape[k] = indices[k];
    p.stride[k] = stride[k] * p.unit;
  }
  const Operand y = ctx.output(0, t, indices);
  const int64_t n = indices.elements();
  if (n > 0) ctx.step("gather_elements", gather_elements, p, {ctx.in(0), ctx.in(1), y}, ctx.parts_for(double(n) * 4));
}

void plan_gather_nd(PlanContext& ctx, const Node& node) {
  const Shape in = ctx.shape(0), indices = ctx.shape(1);
  const DType t = ctx.dtype(0);
  const int64_t given = node.attributes.i("batch_dims", 0);
  check(given >= 0 && given < in.rank() && given < indices.rank(), "batch_dims ", given, " for data ", in,
        " and indices ", indices);
  const int batch = static_cast<int>(given);
  const int64_t depth = indices.back();
  check(depth >= 1 && batch + depth <= in.rank(), "indices ", indices, " address ", depth, " axes of data ", in,
        " after ", batch, " batch axes");
  GatherND p{};
  const int64_t unit = static_cast<int64_t>(size_of(t));
  const Shape stride = strides_of(in);
  Shape out(indices.begin(), indices.end() - 1);
  for (int k = 0; k < batch; ++k) check(in[k] == indices[k], "batch axis ", k, " of ", in, " and ", indices, " differ");
  p.depth = static_cast<int32_t>(depth);
  p.index = index_type(ctx, 1);
  p.batches = in.elements(0, batch);
  p.count = indices.elements(batch, indices.rank() - 1);
  p.batch_bytes = in.elements(batch, in.rank()) * unit;
  p.row = in.elements(batch + p.depth, in.rank()) * unit;
  for (int d = 0; d < p.depth; ++d) {
    p.extent[d] = in[batch + d];
    p.stride[d] = stride[batch + d] * unit;
  }
  for (int k = batch + p.depth; k < in.rank(); ++k) out.push(in[k]);
  const Operand y = ctx.output(0, t, out);
  const int64_t items = p.batches * p.count;
  if (items == 0) return;
  ctx.step("gather_nd", gather_nd, p, {ctx.in(0), ctx.in(1), y},
           ctx.parts_for(double(items) * (8 + double(p.row) / 16)));
}

}  // namespace

std::unique_ptr<Op> make_gather(BuildContext& c) { return make_plain<plan_gather>(c); }
std::unique_ptr<Op> make_gather_elements(BuildContext& c) { return make_plain<plan_gather_elements>(c); }
std::unique_ptr<Op> make_gather_nd(BuildContext& c) { return make_plain<plan_gather_nd>(c); }

}  // namespace fi
