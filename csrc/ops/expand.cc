// SPDX-License-Identifier: Apache-2.0
// Expand and Tile: copies that read some axes again with stride 0.
#include "csrc/ops/copy_step.h"

namespace fi {
namespace {

void plan_expand(PlanContext& ctx, const Node&) {
  const Shape in = ctx.shape(0);
  const DType t = ctx.dtype(0);
  const std::vector<int64_t> target = ctx.require_ints(1);
  const Shape out = broadcast(in, Shape(target.begin(), target.end()));
  if (out.elements() == in.elements()) return ctx.alias(0, 0, t, out);
  const Operand y = ctx.output(0, t, out);
  const int64_t unit = static_cast<int64_t>(size_of(t));
  const Shape from = strides_of(in), to = strides_of(out);
  const int added = out.rank() - in.rank();
  StridedCopy copy(unit);
  for (int k = 0; k < out.rank(); ++k) {
    const bool repeated = k < added || in[k - added] == 1;
    copy.axis(out[k], repeated ? 0 : from[k - added] * unit, to[k] * unit);
  }
  add_copy(ctx, copy, ctx.in(0), y);
}

void plan_tile(PlanContext& ctx, const Node&) {
  const Shape in = ctx.shape(0);
  const DType t = ctx.dtype(0);
  const std::vector<int64_t> repeats = ctx.require_ints(1);
  check(static_cast<int>(repeats.size()) == in.rank(), repeats.size(), " repeats for input ", in);
  Shape out;
  for (int k = 0; k < in.rank(); ++k) {
    check(repeats[k] >= 0, "repeat ", repeats[k], " of axis ", k, " is negative");
    check(in[k] == 0 || repeats[k] <= (int64_t{1} << 48) / in[k], "repeat ", repeats[k], " of ", in, " is too large");
    out.push(in[k] * repeats[k]);
  }
  if (out == in) return ctx.alias(0, 0, t, out);
  const Operand y = ctx.output(0, t, out);
  if (out.elements() == 0) return;
  const int64_t unit = static_cast<int64_t>(size_of(t));
  const Shape from = strides_of(in), to = strides_of(out);
  StridedCopy copy(unit);
  try {
    for (int k = 0; k < in.rank(); ++k) {
      copy.axis(repeats[k], 0, in[k] * to[k] * unit);
      copy.axis(in[k], from[k] * unit, to[k] * unit);
    }
  } catch (const CopyTooDeep& e) {
    ctx.not_native(e.what());
  }
  add_copy(ctx, copy, ctx.in(0), y);
}

}  // namespace

std::unique_ptr<Op> make_expand(BuildContext& c) { return make_plain<plan_expand>(c); }
std::unique_ptr<Op> make_tile(BuildContext& c) { return make_plain<plan_tile>(c); }

}  // namespace fi
