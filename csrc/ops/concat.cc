// SPDX-License-Identifier: Apache-2.0
// Concat and Split. Along the last axis, inputs that were computed in place are not copied and pieces are views.
#include <algorithm>

#include "csrc/ops/copy_step.h"

namespace fi {
namespace {

// One tensor cut along an axis: `outer` rows of extent(axis)·inner bytes.
struct Cut {
  int axis;
  int64_t outer, inner;
};
Cut cut_of(const Shape& s, int64_t axis, DType t) {
  const int a = normalize_axis(axis, s.rank());
  return {a, s.elements(0, a), s.elements(a + 1, s.rank()) * static_cast<int64_t>(size_of(t))};
}

Shape concat_shape(PlanContext& ctx, int axis) {
  Shape out = ctx.shape(0);
  for (int i = 1; i < ctx.n_inputs(); ++i) {
    const Shape& s = ctx.shape(i);
    bool same = s.rank() == out.rank() && ctx.dtype(i) == ctx.dtype(0);
    for (int k = 0; same && k < s.rank(); ++k) same = k == axis || s[k] == out[k];
    check(same, "cannot concatenate ", ctx.input(i), " (input ", i, ") to ", ctx.input(0), " along axis ", axis);
    out[axis] += s[axis];
  }
  return out;
}

// Input i, and in `from` the bytes from one of its rows to the next.
Operand input_rows(PlanContext& ctx, int i, const Cut& cut, int64_t& from) {
  if (cut.axis != ctx.shape(i).rank() - 1) return ctx.in(i);
  int64_t row = 0;
  const Operand x = ctx.in_rows(i, row);
  from = row * cut.inner;
  return x;
}

void plan_concat(PlanContext& ctx, const Node& node) {
  check_model(ctx.n_inputs() > 0, "no inputs");
  const DType t = ctx.dtype(0);
  const Cut cut = cut_of(ctx.shape(0), node.attributes.i("axis"), t);
  const Shape out = concat_shape(ctx, cut.axis);
  if (ctx.n_inputs() == 1) return ctx.alias(0, 0, t, out);
  const Operand y = ctx.output(0, t, out);
  int64_t at = 0;
  for (int i = 0; i < ctx.n_inputs(); ++i) {
    const int64_t bytes = ctx.shape(i)[cut.axis] * cut.inner;
    int64_t from = bytes;
    const Operand x = input_rows(ctx, i, cut, from), place = y.plus(at);
    const bool there = x.base == place.base && x.offset == place.offset;
    if (bytes > 0 && !there) add_row_copy(ctx, cut.outer, bytes, from, out[cut.axis] * cut.inner, x, place);
    at += bytes;
  }
}

std::vector<int64_t> split_sizes(PlanContext& ctx, const Node& node, int64_t extent) {
  if (ctx.has_input(1)) return ctx.require_ints(1);
  const int64_t n = node.attributes.i("num_outputs", ctx.n_outputs());
  check_model(n > 0 && n <= 65536, "num_outputs is ", n, ", needed: 1 to 65536");
  check(node.attributes.has("num_outputs") || extent % n == 0, "cannot split an extent of ", extent, " in ", n,
        " equal pieces");
  const int64_t size = (extent + n - 1) / n;
  std::vector<int64_t> sizes(n, size);
  for (int64_t& s : sizes) {
    s = std::min(size, extent);
    extent -= s;
  }
  return sizes;
}

void plan_split(PlanContext& ctx, const Node& node) {
  const Shape in = ctx.shape(0);
  const DType t = ctx.dtype(0);
  const Cut cut = cut_of(in, node.attributes.i("axis", 0), t);
  const std::vector<int64_t> sizes = split_sizes(ctx, node, in[cut.axis]);
  int64_t sum = 0;
  for (int64_t s : sizes) {
    check(s >= 0 && s <= in[cut.axis], "split size ", s, " for an extent of ", in[cut.axis]);
    sum += s;
  }
  check(sum == in[cut.axis], "split sizes add up to ", sum, ", the extent is ", in[cut.axis]);
  check(static_cast<int>(sizes.size()) >= ctx.n_outputs(), sizes.size(), " split sizes for ", ctx.n_outputs(),
        " outputs");
  if (sizes.size() == 1) return ctx.alias(0, 0, t, in);
  int64_t at = 0;
  for (int i = 0; i < ctx.n_outputs(); ++i) {
    const int64_t bytes = sizes[i] * cut.inner;
    Shape out = in;
    out[cut.axis] = sizes[i];
    if (ctx.wants(i) && !(cut.axis == in.rank() - 1 && bytes > 0 && ctx.view(i, 0, out, at / cut.inner))) {
      const Operand y = ctx.output(i, t, out);
      int64_t from = in[cut.axis] * cut.inner;
      const Operand x = input_rows(ctx, 0, cut, from);
      if (bytes > 0) add_row_copy(ctx, cut.outer, bytes, from, bytes, x.plus(at), y);
    }
    at += bytes;
  }
}

}  // namespace

std::unique_ptr<Op> make_concat(BuildContext& c) { return make_plain<plan_concat>(c); }
std::unique_ptr<Op> make_split(BuildContext& c) { return make_plain<plan_split>(c); }

}  // namespace fi
