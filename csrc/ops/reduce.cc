// SPDX-License-Identifier: Apache-2.0
#include "kernels/reduce/reduce.h"

#include <algorithm>

#include "csrc/ops/pointwise_step.h"
#include "csrc/ops/reduce_step.h"
#include "csrc/ops/typed_reduce.h"

namespace fi {
namespace {

struct Row {
  const char* op;
  Fold fold;
  Finish finish;
};
constexpr Row kRows[] = {
    {"ReduceSum", Fold::sum, Finish::none},       {"ReduceMean", Fold::sum, Finish::mean},
    {"ReduceMax", Fold::max, Finish::none},       {"ReduceMin", Fold::min, Finish::none},
    {"ReduceProd", Fold::product, Finish::none},  {"ReduceL1", Fold::sum_abs, Finish::none},
    {"ReduceL2", Fold::sum_square, Finish::root}, {"ReduceSumSquare", Fold::sum_square, Finish::none},
    {"ReduceLogSum", Fold::sum, Finish::log},     {"ReduceLogSumExp", Fold::log_sum_exp, Finish::none},
};

const Row& row_of(const std::string& op) {
  for (const Row& r : kRows)
    if (op == r.op) return r;
  throw ModelError("no reduction '" + op + "'");
}

// Axes of one kind, neighbours joined, axes of extent 1 left out.
struct Axes {
  int n = 0;
  int64_t extent[kMaxRank];
  bool reduced[kMaxRank];

  void push(int64_t e, bool r) {
    if (n > 0 && reduced[n - 1] == r) {
      extent[n - 1] *= e;
    } else {
      extent[n] = e;
      reduced[n++] = r;
    }
  }
  int64_t product(int first, int last) const {
    int64_t p = 1;
    for (int k = first; k < last; ++k) p *= extent[k];
    return p;
  }
};

void mark_reduced(PlanContext& ctx, const Node& node, bool* reduced) {
  const int rank = ctx.shape(0).rank();
  const std::vector<int64_t> axes = ctx.has_input(1) ? ctx.require_ints(1) : std::vector<int64_t>{};
  if (axes.empty()) std::fill(reduced, reduced + rank, node.attributes.i("noop_with_empty_axes", 0) == 0);
  for (int64_t a : axes) reduced[normalize_axis(a, rank)] = true;
}

Shape reduced_shape(const Shape& in, const bool* reduced, bool keep) {
  Shape out;
  for (int d = 0; d < in.rank(); ++d) {
    if (!reduced[d]) out.push(in[d]);
    if (reduced[d] && keep) out.push(1);
  }
  return out;
}

// One step per run of reduced axes, the innermost first.
void add_steps(PlanContext& ctx, Fold first, Finish finish, Axes axes, int64_t count, Operand x, Operand y,
               DType type) {
  const ReduceKernel fast = select_reduce(ctx.isa());
  const StepFn slow = typed_reduce(type);
  if (std::none_of(axes.reduced, axes.reduced + axes.n, [](bool r) { return r; })) axes.push(1, true);
  Fold fold = first;
  for (int k = axes.n - 1; k >= 0; --k) {
    if (!axes.reduced[k]) continue;
    const bool last = std::none_of(axes.reduced, axes.reduced + k, [](bool r) { return r; });
    ReduceParams p{axes.product(0, k),          axes.extent[k], axes.product(k + 1, axes.n), count, fold,
                   last ? finish : Finish::none};
    if (p.n == 1 && p.inner == 1) std::swap(p.outer, p.inner);  // nothing to reduce: vectors over all elements
    const int64_t results = p.outer * p.inner;
    const Operand to = last ? y : ctx.scratch(static_cast<size_t>(results) * size_of(type));
    const bool is_fast = type == DType::f32;
    const double cost =
        static_cast<double>(results) * static_cast<double>(p.n) * (is_fast ? fold == Fold::log_sum_exp ? 2 : 0.2 : 4);
    if (results > 0)
      ctx.step(is_fast ? fast.name : "reduce", is_fast ? fast.run : slow, p, {x, to}, ctx.parts_for(cost));
    x = to;
    if (fold == Fold::sum_abs || fold == Fold::sum_square) fold = Fold::sum;
    Axes rest;
    for (int i = 0; i < axes.n; ++i)
      if (i != k) rest.push(axes.extent[i], axes.reduced[i]);
    axes = rest;
    k = axes.n;
  }
}

void plan_reduce(PlanContext& ctx, const Node& node) {
  const Desc x = ctx.input(0);
  const Row& row = row_of(node.op);
  bool reduced[kMaxRank] = {};
  mark_reduced(ctx, node, reduced);
  const Shape out = reduced_shape(x.shape, reduced, node.attributes.i("keepdims", 1) != 0);
  const bool order = row.fold == Fold::max || row.fold == Fold::min;
  if (x.dtype == DType::f32 || x.dtype == DType::f16 || x.dtype == DType::bf16) {
    const Operand in = float_input(ctx, 0);
    const FloatOutput y = float_output(ctx, 0, x.dtype, out);
    add_reduction(ctx, row.fold, row.finish, x.shape, reduced, in, y.data, DType::f32);
    y.finish(ctx);
    return;
  }
  if (!typed_reduce(x.dtype) || (x.dtype == DType::boolean && !order))
    ctx.not_native(words(node.op, " of ", name_of(x.dtype)));
  add_reduction(ctx, row.fold, row.finish, x.shape, reduced, ctx.in(0), ctx.output(0, x.dtype, out), x.dtype);
}

struct Split {
  int64_t outer, n, inner;
};
Split split_at(const Shape& s, int axis) { return {s.elements(0, axis), s[axis], s.elements(axis + 1, s.rank())}; }

void plan_arg(PlanContext& ctx, const Node& node) {
  const Desc x = ctx.input(0);
  const Attributes& a = node.attributes;
  check(x.shape.rank() > 0, node.op, " needs an axis; the input is a scalar");
  const int axis = normalize_axis(a.i("axis", 0), x.shape.rank());
  Shape out = x.shape;
  out[axis] = 1;
  if (a.i("keepdims", 1) == 0) out.erase(axis);
  const bool half = x.dtype == DType::f16 || x.dtype == DType::bf16;
  const StepFn fn = typed_arg(half ? DType::f32 : x.dtype);
  if (!fn) ctx.not_native(words(node.op, " of ", name_of(x.dtype)));
  const Split s = split_at(x.shape, axis);
  const Operand y = ctx.output(0, DType::s64, out);
  if (out.elements() == 0) return;
  check(s.n > 0, node.op, " over axis ", axis, " of ", x.shape, ", which has no element");
  const ArgParams p{s.outer, s.n, s.inner, node.op == "ArgMin", a.i("select_last_index", 0) != 0};
  ctx.step("arg_reduce", fn, p, {half ? float_input(ctx, 0) : ctx.in(0), y},
           ctx.parts_for(static_cast<double>(x.elements()) * 4));
}

void plan_cumulate(PlanContext& ctx, const Node& node) {
  const Desc x = ctx.input(0);
  const Attributes& a = node.attributes;
  const std::vector<int64_t> given = ctx.require_ints(1);
  check(given.size() == 1, node.op, " needs one axis, not ", given.size());
  const int axis = normalize_axis(given[0], x.shape.rank());
  const bool half = x.dtype == DType::f16 || x.dtype == DType::bf16;
  const StepFn fn = typed_cumulate(half ? DType::f32 : x.dtype);
  if (!fn) ctx.not_native(words(node.op, " of ", name_of(x.dtype)));
  const Split s = split_at(x.shape, axis);
  const CumulateParams p{s.outer, s.n, s.inner, node.op == "CumProd", a.i("exclusive", 0) != 0, a.i("reverse", 0) != 0};
  const int parts = ctx.parts_for(static_cast<double>(x.elements()) * 8);
  if (!half) {
    const Operand y = ctx.output(0, x.dtype, x.shape);
    if (x.elements() > 0) ctx.step("cumulate", fn, p, {ctx.in(0), y}, parts);
    return;
  }
  const Operand in = float_input(ctx, 0);
  const FloatOutput y = float_output(ctx, 0, x.dtype, x.shape);
  if (x.elements() > 0) ctx.step("cumulate", fn, p, {in, y.data}, parts);
  y.finish(ctx);
}

}  // namespace

void add_reduction(PlanContext& ctx, Fold fold, Finish finish, const Shape& shape, const bool* reduced, Operand x,
                   Operand y, DType type) {
  Axes axes;
  int64_t count = 1;
  for (int d = 0; d < shape.rank(); ++d) {
    if (shape[d] != 1) axes.push(shape[d], reduced[d]);
    if (reduced[d]) count *= shape[d];
  }
  add_steps(ctx, fold, finish, axes, count, x, y, type);
}

std::unique_ptr<Op> make_reduce(BuildContext& c) { return make_plain<plan_reduce>(c); }
std::unique_ptr<Op> make_arg_reduce(BuildContext& c) { return make_plain<plan_arg>(c); }
std::unique_ptr<Op> make_cumulate(BuildContext& c) { return make_plain<plan_cumulate>(c); }

}  // namespace fi
