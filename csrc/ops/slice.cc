// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "csrc/ops/copy_step.h"

namespace fi {
namespace {

struct AxisSlice {
  int64_t start = 0, step = 1, count = 0;
};

// Negative positions count from the end, then everything is clamped to what the step can reach; as the specification
// has it, the start of a negative step is clamped to 0 (numpy would find nothing there).
AxisSlice slice_axis(int64_t extent, int64_t start, int64_t end, int64_t step) {
  check(step != 0, "slice step is 0");
  if (extent == 0) return {};
  constexpr int64_t kFar = int64_t{1} << 50;  // beyond any extent; keeps the arithmetic below from overflowing
  step = std::clamp(step, -kFar, kFar);
  if (start < 0) start += extent;
  if (end < 0) end += extent;
  const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? extent : extent - 1;
  start = std::clamp(start, int64_t{0}, high);
  end = std::clamp(end, low, high);
  const int64_t count = step > 0 ? (end - start + step - 1) / step : (start - end - step - 1) / -step;
  return {start, step, std::max<int64_t>(count, 0)};
}

// axes: as given or 0..n-1.
std::vector<int> slice_axes(PlanContext& ctx, size_t n, int rank) {
  std::vector<int> axes;
  if (ctx.has_input(3)) {
    for (int64_t a : ctx.require_ints(3)) axes.push_back(normalize_axis(a, rank));
  } else {
    for (size_t i = 0; i < n; ++i) axes.push_back(normalize_axis(static_cast<int64_t>(i), rank));
  }
  return axes;
}

void plan_slice(PlanContext& ctx, const Node&) {
  const Shape in = ctx.shape(0);
  const DType t = ctx.dtype(0);
  const std::vector<int64_t> starts = ctx.require_ints(1), ends = ctx.require_ints(2);
  const std::vector<int> axes = slice_axes(ctx, starts.size(), in.rank());
  const std::vector<int64_t> steps = ctx.has_input(4) ? ctx.require_ints(4) : std::vector<int64_t>(starts.size(), 1);
  check(ends.size() == starts.size() && axes.size() == starts.size() && steps.size() == starts.size(),
        "starts, ends, axes and steps have ", starts.size(), ", ", ends.size(), ", ", axes.size(), " and ",
        steps.size(), " entries");
  AxisSlice slices[kMaxRank];
  for (int k = 0; k < in.rank(); ++k) slices[k].count = in[k];
  bool seen[kMaxRank] = {};
  for (size_t i = 0; i < axes.size(); ++i) {
    check(!seen[axes[i]], "axis ", axes[i], " is sliced twice");
    seen[axes[i]] = true;
    slices[axes[i]] = slice_axis(in[axes[i]], starts[i], ends[i], steps[i]);
  }
  Shape out;
  for (int k = 0; k < in.rank(); ++k) out.push(slices[k].count);
  bool reversed = false;
  for (int k = 0; k < in.rank(); ++k) reversed |= slices[k].step < 0 && slices[k].count > 1;
  if (out == in && !reversed) return ctx.alias(0, 0, t, out);
  const Operand y = ctx.output(0, t, out);
  if (out.elements() == 0) return;
  const int64_t unit = static_cast<int64_t>(size_of(t));
  const Shape from = strides_of(in), to = strides_of(out);
  StridedCopy copy(unit);
  int64_t first = 0;
  for (int k = 0; k < in.rank(); ++k) {
    first += slices[k].start * from[k] * unit;
    const int64_t step = slices[k].count > 1 ? slices[k].step : 0;  // a lone element's step may be anything
    copy.axis(out[k], step * from[k] * unit, to[k] * unit);
  }
  add_copy(ctx, copy, ctx.in(0).plus(first), y);
}

}  // namespace

std::unique_ptr<Op> make_slice(BuildContext& c) { return make_plain<plan_slice>(c); }

}  // namespace fi
