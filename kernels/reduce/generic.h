// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "kernels/reduce/fold.h"
#include "kernels/reduce/reduce.h"

namespace fi::FI_ISA {

FI_INLINE VF finish(VF v, Finish f, int64_t n) {
  switch (f) {
    case Finish::mean:
      return v / set1(static_cast<float>(n));
    case Finish::root:
      return sqrt(v);
    case Finish::log:
      return log(v);
    default:
      return v;
  }
}
// In double up to the end, where the sum was.
FI_INLINE float finish_sum(double v, Finish f, int64_t n) {
  if (f == Finish::mean) return static_cast<float>(v / static_cast<double>(n));
  float lanes[VF::W];
  store(lanes, finish(set1(static_cast<float>(v)), f, n));
  return lanes[0];
}

// NaN if there is one.
static float largest(const float* x, int64_t n) {
  float lanes[VF::W];
  store(lanes, fold(
                   x, n, neg(infinity()), [](VF a) FI_FORCED_LAMBDA { return a; },
                   [](VF a, VF b) FI_FORCED_LAMBDA { return max_nan(a, b); }));
  float y = lanes[0];
  for (float v : lanes) y = y != y || y > v ? y : v;
  return y;
}

static float log_sum_exp_row(const float* x, int64_t n) {
  const float top = largest(x, n);
  if (top - top != 0) return top;  // NaN, -inf, inf
  const VF m = set1(top);
  const double sum = sum_of(x, n, [m](VF a) FI_FORCED_LAMBDA { return exp(a - m); });
  return top + finish_sum(sum, Finish::log, n);
}

static float reduce_row(const ReduceParams& p, const float* x) {
  const int64_t n = p.n;
  const Finish f = p.finish;
  const auto same = [](VF a) FI_FORCED_LAMBDA { return a; };
  switch (p.fold) {
    case Fold::sum:
      return finish_sum(sum_of(x, n), f, p.count);
    case Fold::sum_abs:
      return finish_sum(sum_of(x, n, [](VF a) FI_FORCED_LAMBDA { return abs(a); }), f, p.count);
    case Fold::sum_square:
      return finish_sum(sum_of(x, n, [](VF a) FI_FORCED_LAMBDA { return a * a; }), f, p.count);
    case Fold::log_sum_exp:
      return log_sum_exp_row(x, n);
    default:
      break;
  }
  float lanes[VF::W];
  float y;
  if (p.fold == Fold::product) {
    store(lanes, fold(x, n, set1(1.f), same, [](VF a, VF b) FI_FORCED_LAMBDA { return a * b; }));
    y = 1;
    for (float v : lanes) y *= v;
  } else if (p.fold == Fold::max) {
    y = largest(x, n);
  } else {
    store(lanes, fold(x, n, infinity(), same, [](VF a, VF b) FI_FORCED_LAMBDA { return min_nan(a, b); }));
    y = lanes[0];
    for (float v : lanes) y = y != y || y < v ? y : v;
  }
  return y;
}

template <class Combine>
FI_INLINE VF fold_column(const float* x, int64_t n, int64_t stride, int left, VF identity, Combine combine) {
  VF a = identity;
  for (int64_t k = 0; k < n; ++k) a = combine(a, load(x + k * stride, left));
  return a;
}

FI_INLINE VF log_sum_exp_column(const float* x, int64_t n, int64_t stride, int left) {
  const VF top =
      fold_column(x, n, stride, left, neg(infinity()), [](VF a, VF b) FI_FORCED_LAMBDA { return max_nan(a, b); });
  const VM finite = (top - top) == zero();
  const VF sum = sum_column(x, n, stride, left, [top](VF a) FI_FORCED_LAMBDA { return exp(a - top); });
  return select(finite, top + log(sum), top);
}

static VF reduce_column(const float* x, int64_t n, int64_t stride, int left, Fold fold_kind) {
  switch (fold_kind) {
    case Fold::sum:
      return sum_column(x, n, stride, left, [](VF a) FI_FORCED_LAMBDA { return a; });
    case Fold::sum_abs:
      return sum_column(x, n, stride, left, [](VF a) FI_FORCED_LAMBDA { return abs(a); });
    case Fold::sum_square:
      return sum_column(x, n, stride, left, [](VF a) FI_FORCED_LAMBDA { return a * a; });
    case Fold::log_sum_exp:
      return log_sum_exp_column(x, n, stride, left);
    case Fold::max:
      return fold_column(x, n, stride, left, neg(infinity()),
                         [](VF a, VF b) FI_FORCED_LAMBDA { return max_nan(a, b); });
    case Fold::min:
      return fold_column(x, n, stride, left, infinity(), [](VF a, VF b) FI_FORCED_LAMBDA { return min_nan(a, b); });
    default:
      return fold_column(x, n, stride, left, set1(1.f), [](VF a, VF b) FI_FORCED_LAMBDA { return a * b; });
  }
}

Status run_reduce(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const ReduceParams*>(params);
  const auto* x = static_cast<const float*>(args[0]);
  auto* y = static_cast<float*>(args[1]);
  const Range r = part_of(reduce_units(p), part, parts);
  if (p.inner == 1) {
    for (int64_t o = r.begin; o < r.end; ++o) y[o] = reduce_row(p, x + o * p.n);
    return Status::ok;
  }
  const int64_t blocks = (p.inner + kReduceBlock - 1) / kReduceBlock;
  for (int64_t u = r.begin; u < r.end; ++u) {
    const int64_t o = u / blocks, first = u % blocks * kReduceBlock;
    const int64_t last = first + kReduceBlock < p.inner ? first + kReduceBlock : p.inner;
    for (int64_t i = first; i < last; i += VF::W) {
      const int left = static_cast<int>(last - i < VF::W ? last - i : VF::W);
      const VF v = reduce_column(x + o * p.n * p.inner + i, p.n, p.inner, left, p.fold);
      store(y + o * p.inner + i, finish(v, p.finish, p.count), left);
    }
  }
  return Status::ok;
}

}  // namespace fi::FI_ISA
