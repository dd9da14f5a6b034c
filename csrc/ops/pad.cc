// SPDX-License-Identifier: Apache-2.0
#include "kernels/move/pad.h"

#include <algorithm>

#include "csrc/ops/copy_step.h"

namespace fi {
namespace {

constexpr int64_t kFar = int64_t{1} << 48;
alignas(16) constexpr char kZero[16] = {};

struct Pads {
  int64_t begin[kMaxRank] = {}, end[kMaxRank] = {};
};

Pads read_pads(PlanContext& ctx, const Shape& in) {
  const std::vector<int64_t> given = ctx.require_ints(1);
  std::vector<int64_t> axes;
  if (ctx.has_input(3)) {
    axes = ctx.require_ints(3);
  } else {
    for (int k = 0; k < in.rank(); ++k) axes.push_back(k);
  }
  check(given.size() == 2 * axes.size(), given.size(), " pads for ", axes.size(), " axes");
  Pads pads;
  bool seen[kMaxRank] = {};
  for (size_t i = 0; i < axes.size(); ++i) {
    const int a = normalize_axis(axes[i], in.rank());
    check(!seen[a], "axis ", axes[i], " is padded twice");
    seen[a] = true;
    pads.begin[a] = given[i];
    pads.end[a] = given[i + axes.size()];
    check(std::abs(given[i]) <= kFar && std::abs(pads.end[a]) <= kFar, "pads ", given[i], ", ", pads.end[a],
          " of axis ", a);
  }
  return pads;
}

Shape padded(const Shape& in, const Pads& pads) {
  Shape out;
  for (int k = 0; k < in.rank(); ++k) {
    out.push(in[k] + pads.begin[k] + pads.end[k]);
    check(out[k] >= 0, "pads ", pads.begin[k], ", ", pads.end[k], " leave nothing of axis ", k, " of ", in);
  }
  return out;
}

// Fills the box [lo, hi) of the output with one element.
void add_fill(PlanContext& ctx, const Shape& out, const int64_t* lo, const int64_t* hi, int64_t unit, Operand value,
              Operand y) {
  const Shape to = strides_of(out);
  StridedCopy copy(unit);
  int64_t first = 0;
  for (int k = 0; k < out.rank(); ++k) {
    first += lo[k] * to[k] * unit;
    copy.axis(hi[k] - lo[k], 0, to[k] * unit);
  }
  add_copy(ctx, copy, value, y.plus(first));
}

Operand pad_value(PlanContext& ctx) {
  if (!ctx.has_input(2)) return ctx.address(kZero);
  check(ctx.input(2).elements() == 1 && ctx.dtype(2) == ctx.dtype(0), "constant_value is ", ctx.input(2),
        ", needed: one element of the data's type");
  return ctx.in(2);
}

// The output is cut into the copied box and, axis by axis, the two slabs around it: every byte is written once.
void plan_constant(PlanContext& ctx, const Shape& in, const Shape& out, const Pads& pads, int64_t unit, Operand value,
                   Operand y) {
  int64_t lo[kMaxRank] = {}, hi[kMaxRank], box_lo[kMaxRank], box_hi[kMaxRank];
  for (int k = 0; k < out.rank(); ++k) {
    hi[k] = out[k];
    box_lo[k] = std::clamp<int64_t>(pads.begin[k], 0, out[k]);
    box_hi[k] = std::clamp<int64_t>(pads.begin[k] + in[k], box_lo[k], out[k]);
  }
  for (int k = 0; k < out.rank(); ++k) {
    hi[k] = box_lo[k];
    if (hi[k] > lo[k]) add_fill(ctx, out, lo, hi, unit, value, y);
    lo[k] = box_hi[k];
    hi[k] = out[k];
    if (hi[k] > lo[k]) add_fill(ctx, out, lo, hi, unit, value, y);
    lo[k] = box_lo[k];
    hi[k] = box_hi[k];
  }
  const Shape from = strides_of(in), to = strides_of(out);
  StridedCopy copy(unit);
  int64_t x0 = 0, y0 = 0;
  for (int k = 0; k < out.rank(); ++k) {
    copy.axis(hi[k] - lo[k], from[k] * unit, to[k] * unit);
    x0 += (lo[k] - pads.begin[k]) * from[k] * unit;
    y0 += lo[k] * to[k] * unit;
  }
  copy.finish();
  if (copy.bytes() > 0) add_copy(ctx, copy, ctx.in(0).plus(x0), y.plus(y0));
}

// A negative pad crops first; what is left is repeated. Inner axes that are not padded join the unit.
void plan_repeat(PlanContext& ctx, PadMode mode, const Shape& in, const Shape& out, const Pads& pads, int64_t unit,
                 Operand y) {
  PadCopy p{};
  p.mode = mode;
  p.rank = out.rank();
  const Shape stride = strides_of(in);
  int64_t first = 0;
  for (int k = 0; k < p.rank; ++k) {
    const int64_t crop = std::max<int64_t>(-pads.begin[k], 0);
    p.in[k] = in[k] - crop - std::max<int64_t>(-pads.end[k], 0);
    p.out[k] = out[k];
    p.begin[k] = pads.begin[k] + crop;
    p.stride[k] = stride[k] * unit;
    first += crop * p.stride[k];
    check(p.in[k] > 0 || out[k] == 0, "cannot repeat axis ", k, " of ", in, ": nothing is left of it");
  }
  if (out.elements() == 0) return;
  p.unit = unit;
  auto untouched = [&](int k) { return pads.begin[k] == 0 && pads.end[k] == 0; };
  while (p.rank > 1 && untouched(p.rank - 1)) p.unit *= p.out[--p.rank];
  ctx.step("pad_repeat", pad_copy, p, {ctx.in(0).plus(first), y},
           ctx.parts_for(double(out.elements()) * double(unit) / 8));
}

void plan_pad(PlanContext& ctx, const Node& node) {
  const Shape in = ctx.shape(0);
  const DType t = ctx.dtype(0);
  const std::string mode = node.attributes.s("mode", "constant");
  const Pads pads = read_pads(ctx, in);
  const Shape out = padded(in, pads);
  const int64_t unit = static_cast<int64_t>(size_of(t));
  bool none = true;
  for (int k = 0; k < in.rank(); ++k) none &= pads.begin[k] == 0 && pads.end[k] == 0;
  if (none) return ctx.alias(0, 0, t, out);
  const Operand y = ctx.output(0, t, out);
  if (mode == "constant") {
    if (out.elements() > 0) plan_constant(ctx, in, out, pads, unit, pad_value(ctx), y);
    return;
  }
  check_model(mode == "reflect" || mode == "edge" || mode == "wrap", "pad mode '", mode,
              "', known: constant, reflect, edge, wrap");
  plan_repeat(ctx,
              mode == "reflect" ? PadMode::reflect
              : mode == "edge"  ? PadMode::edge
                                : PadMode::wrap,
              in, out, pads, unit, y);
}

// Crops or pads with zeros, half on each side; the odd element goes to the end.
void plan_center_crop_pad(PlanContext& ctx, const Node& node) {
  const Shape in = ctx.shape(0);
  const DType t = ctx.dtype(0);
  const std::vector<int64_t> target = ctx.require_ints(1);
  std::vector<int64_t> axes = node.attributes.ints("axes");
  for (int k = 0; !node.attributes.has("axes") && k < in.rank(); ++k) axes.push_back(k);
  check(axes.size() == target.size(), target.size(), " extents for ", axes.size(), " axes");
  Pads pads;
  for (size_t i = 0; i < axes.size(); ++i) {
    const int a = normalize_axis(axes[i], in.rank());
    check(target[i] >= 0 && target[i] <= kFar, "extent ", target[i], " for axis ", axes[i]);
    pads.begin[a] = (target[i] - in[a]) / 2;
    pads.end[a] = target[i] - in[a] - pads.begin[a];
  }
  const Shape out = padded(in, pads);
  const Operand y = ctx.output(0, t, out);
  if (out.elements() > 0) plan_constant(ctx, in, out, pads, static_cast<int64_t>(size_of(t)), ctx.address(kZero), y);
}

}  // namespace

std::unique_ptr<Op> make_center_crop_pad(BuildContext& c) { return make_plain<plan_center_crop_pad>(c); }
std::unique_ptr<Op> make_pad(BuildContext& c) { return make_plain<plan_pad>(c); }

}  // namespace fi
