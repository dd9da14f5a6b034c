// SPDX-License-Identifier: Apache-2.0
// Folding rows and columns of float32 in a fixed order, for reductions, softmax and norms. The order looks at the
// length alone. Sums are exact to a few ulp whatever the length: short runs in float32, their totals in double (rows)
// or with a compensation (columns).
#pragma once
#include "kernels/simd/math.h"

namespace fi::FI_ISA {

#define FI_FORCED_LAMBDA __attribute__((always_inline))

// combine over map(x[i]); four accumulators hide the latency of the operation.
template <class Map, class Combine>
FI_INLINE VF fold(const float* x, int64_t n, VF identity, Map map, Combine combine) {
  constexpr int W = VF::W;
  VF a0 = identity, a1 = identity, a2 = identity, a3 = identity;
  int64_t i = 0;
  for (; i + 4 * W <= n; i += 4 * W) {
    a0 = combine(a0, map(load(x + i)));
    a1 = combine(a1, map(load(x + i + W)));
    a2 = combine(a2, map(load(x + i + 2 * W)));
    a3 = combine(a3, map(load(x + i + 3 * W)));
  }
  for (; i + W <= n; i += W) a0 = combine(a0, map(load(x + i)));
  if (const int left = static_cast<int>(n - i); left > 0)
    a1 = combine(a1, select(first_n(left), map(load(x + i, left)), identity));
  return combine(combine(a0, a2), combine(a1, a3));
}

constexpr int64_t kSumRun = 64 * VF::W;

template <class Map>
FI_INLINE double sum_of(const float* x, int64_t n, Map map) {
  const auto add = [](VF a, VF b) FI_FORCED_LAMBDA { return a + b; };
  if (n <= kSumRun) return reduce_add(fold(x, n, zero(), map, add));
  double total = 0;
  for (int64_t i = 0; i < n; i += kSumRun)
    total += reduce_add(fold(x + i, n - i < kSumRun ? n - i : kSumRun, zero(), map, add));
  return total;
}
FI_INLINE double sum_of(const float* x, int64_t n) {
  return sum_of(x, n, [](VF a) FI_FORCED_LAMBDA { return a; });
}

// NaN in x gives NaN or the largest of the rest.
FI_INLINE float max_of(const float* x, int64_t n) {
  return reduce_max(fold(
      x, n, neg(infinity()), [](VF a) FI_FORCED_LAMBDA { return a; },
      [](VF a, VF b) FI_FORCED_LAMBDA { return max(a, b); }));
}

// A sum that keeps what rounding takes away.
struct Compensated {
  VF total = zero(), lost = zero();
  FI_INLINE_MEMBER void add(VF v) {
    const VF s = total + v, back = s - total;
    lost = lost + ((total - (s - back)) + (v - back));
    total = s;
  }
  // Beside an infinite total `lost` holds ∞ − ∞.
  FI_INLINE_MEMBER VF value() const { return select((total - total) == zero(), total + lost, total); }
};

constexpr int64_t kColumnRun = 32;

// Σ map(x[i·stride + lane]) over i, `left` lanes (VF::W: all).
template <class Map>
FI_INLINE VF sum_column(const float* x, int64_t n, int64_t stride, int left, Map map) {
  Compensated total;
  for (int64_t i = 0; i < n; i += kColumnRun) {
    const int64_t end = n - i < kColumnRun ? n : i + kColumnRun;
    VF a = zero(), b = zero();
    int64_t k = i;
    if (left == VF::W) {
      for (; k + 2 <= end; k += 2) {
        a = a + map(load(x + k * stride));
        b = b + map(load(x + (k + 1) * stride));
      }
      if (k < end) a = a + map(load(x + k * stride));
    } else {
      for (; k + 2 <= end; k += 2) {
        a = a + map(load(x + k * stride, left));
        b = b + map(load(x + (k + 1) * stride, left));
      }
      if (k < end) a = a + map(load(x + k * stride, left));
    }
    total.add(a + b);
  }
  return total.value();
}

}  // namespace fi::FI_ISA
