// SPDX-License-Identifier: Apache-2.0
// Operators that only look at shapes or rename one: no step at run time.
#include <algorithm>

#include "csrc/ops/op.h"

namespace fi {
namespace {

void plan_identity(PlanContext& ctx, const Node&) { ctx.alias(0, 0, ctx.dtype(0), ctx.shape(0)); }

void plan_shape(PlanContext& ctx, const Node& node) {
  const Shape& s = ctx.shape(0);
  const int64_t rank = s.rank();
  auto clamp = [&](int64_t v) { return std::clamp<int64_t>(v < 0 ? v + rank : v, 0, rank); };
  const int64_t start = clamp(node.attributes.i("start", 0)), end = clamp(node.attributes.i("end", rank));
  const int64_t n = std::max<int64_t>(0, end - start);
  ctx.known_output(0, DType::s64, Shape{n}, s.begin() + start);
}

void plan_size(PlanContext& ctx, const Node&) {
  const int64_t n = ctx.shape(0).elements();
  ctx.known_output(0, DType::s64, Shape{}, &n);
}

void plan_reshape(PlanContext& ctx, const Node& node) {
  const Shape& in = ctx.shape(0);
  const bool allow_zero = node.attributes.i("allowzero", 0) != 0;
  const std::vector<int64_t> target = ctx.require_ints(1);
  Shape out;
  int wild = -1;
  int64_t rest = 1;
  for (size_t i = 0; i < target.size(); ++i) {
    int64_t d = target[i];
    if (d == 0 && !allow_zero) {
      check(static_cast<int>(i) < in.rank(), "reshape target ", Shape(target.begin(), target.end()), " copies axis ", i,
            ", which input ", in, " does not have");
      d = in[static_cast<int>(i)];
    } else if (d == -1) {
      check(wild < 0, "reshape target ", Shape(target.begin(), target.end()), " has more than one -1");
      wild = static_cast<int>(i);
      d = 1;
    }
    check(d >= 0, "reshape target ", Shape(target.begin(), target.end()), " has a negative extent");
    out.push(d);
  }
  rest = out.elements();
  if (wild >= 0) {
    check(rest > 0 ? in.elements() % rest == 0 : in.elements() == 0, "cannot reshape ", in, " to ",
          Shape(target.begin(), target.end()));
    out[wild] = rest > 0 ? in.elements() / rest : 0;
  }
  check(out.elements() == in.elements(), "cannot reshape ", in, " (", in.elements(), " elements) to ", out, " (",
        out.elements(), ")");
  ctx.alias(0, 0, ctx.dtype(0), out);
}

void plan_squeeze(PlanContext& ctx, const Node&) {
  const Shape& in = ctx.shape(0);
  bool drop[kMaxRank] = {};
  if (ctx.has_input(1)) {
    for (int64_t a : ctx.require_ints(1)) {
      const int axis = normalize_axis(a, in.rank());
      check(in[axis] == 1, "cannot squeeze axis ", a, " of ", in, ": its extent is not 1");
      drop[axis] = true;
    }
  } else {
    for (int i = 0; i < in.rank(); ++i) drop[i] = in[i] == 1;
  }
  Shape out;
  for (int i = 0; i < in.rank(); ++i)
    if (!drop[i]) out.push(in[i]);
  ctx.alias(0, 0, ctx.dtype(0), out);
}

void plan_unsqueeze(PlanContext& ctx, const Node&) {
  const Shape& in = ctx.shape(0);
  const std::vector<int64_t> axes = ctx.require_ints(1);
  const int rank = in.rank() + static_cast<int>(axes.size());
  check(rank <= kMaxRank, "rank above ", kMaxRank, " is not supported");
  bool added[kMaxRank] = {};
  for (int64_t a : axes) {
    const int axis = normalize_axis(a, rank);
    check(!added[axis], "unsqueeze axis ", a, " is given twice");
    added[axis] = true;
  }
  Shape out;
  for (int i = 0, j = 0; i < rank; ++i) out.push(added[i] ? 1 : in[j++]);
  ctx.alias(0, 0, ctx.dtype(0), out);
}

void plan_flatten(PlanContext& ctx, const Node& node) {
  const Shape& in = ctx.shape(0);
  const int64_t given = node.attributes.i("axis", 1);
  check(given >= -in.rank() && given <= in.rank(), "axis ", given, " is outside [", -in.rank(), ", ", in.rank(), "]");
  const int axis = static_cast<int>(given < 0 ? given + in.rank() : given);
  ctx.alias(0, 0, ctx.dtype(0), Shape{in.elements(0, axis), in.elements(axis, in.rank())});
}

// y has x's bytes under another type of the same width.
void plan_bit_cast(PlanContext& ctx, const Node& node) {
  const DType from = ctx.dtype(0), to = static_cast<DType>(node.attributes.i("to"));
  if (size_of(to) == 0 || size_of(from) == 0) ctx.not_native(words(name_of(from), " to ", name_of(to)));
  check(size_of(to) == size_of(from), "cannot reinterpret ", name_of(from), " as ", name_of(to),
        ": their widths differ");
  ctx.alias(0, 0, to, ctx.shape(0));
}

}  // namespace

std::unique_ptr<Op> make_bit_cast(BuildContext& c) { return make_plain<plan_bit_cast>(c); }
std::unique_ptr<Op> make_identity(BuildContext& c) { return make_plain<plan_identity>(c); }
std::unique_ptr<Op> make_shape(BuildContext& c) { return make_plain<plan_shape>(c); }
std::unique_ptr<Op> make_size(BuildContext& c) { return make_plain<plan_size>(c); }
std::unique_ptr<Op> make_reshape(BuildContext& c) { return make_plain<plan_reshape>(c); }
std::unique_ptr<Op> make_squeeze(BuildContext& c) { return make_plain<plan_squeeze>(c); }
std::unique_ptr<Op> make_unsqueeze(BuildContext& c) { return make_plain<plan_unsqueeze>(c); }
std::unique_ptr<Op> make_flatten(BuildContext& c) { return make_plain<plan_flatten>(c); }

}  // namespace fi
