// SPDX-License-Identifier: Apache-2.0
#include "kernels/move/topk.h"

#include "csrc/ops/op.h"
#include "kernels/move/order_key.h"

namespace fi {
namespace {

void plan_topk(PlanContext& ctx, const Node& node) {
  const Shape in = ctx.shape(0);
  const DType t = ctx.dtype(0);
  const int axis = normalize_axis(node.attributes.i("axis", -1), in.rank());
  const std::vector<int64_t> k = ctx.require_ints(1);
  check(k.size() == 1 && k[0] >= 0 && k[0] <= in[axis], "k is ", k.empty() ? -1 : k[0], " (", k.size(),
        " elements), axis ", axis, " of ", in, " has ", in[axis]);
  if (!is_ordered(t)) ctx.not_native(words("TopK of ", name_of(t)));
  const TopK p{t,        node.attributes.i("largest", 1) != 0, in.elements(0, axis),
               in[axis], in.elements(axis + 1, in.rank()),     k[0]};
  Shape out = in;
  out[axis] = p.k;
  const Operand values = ctx.output(0, t, out), indices = ctx.output(1, DType::s64, out);
  if (out.elements() == 0) return;
  const int parts = ctx.parts_for(double(in.elements()) * 8);
  const Operand room = ctx.scratch(sizeof(TopKEntry) * topk_room(p) * parts);
  ctx.step("topk", topk, p, {ctx.in(0), values, indices, room}, parts);
}

}  // namespace

std::unique_ptr<Op> make_topk(BuildContext& c) { return make_plain<plan_topk>(c); }

}  // namespace fi
