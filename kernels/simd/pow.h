// SPDX-License-Identifier: Apache-2.0
// x^y over VF with IEEE's special cases, by a logarithm of about 32 bits in two floats.
#pragma once
#include "kernels/simd/math.h"

namespace fi::FI_ISA {

namespace detail {

// a·b − rounded(a·b), exactly.
FI_INLINE VF product_error(VF a, VF b, VF product) {
  if constexpr (VF::fused) {
    return fms(a, b, product);
  } else {  // Dekker: halves of 12 bits, whose products are exact
    const VF split = set1(4097.f), sa = a * split, sb = b * split;
    const VF ah = sa - (sa - a), bh = sb - (sb - b), al = a - ah, bl = b - bh;
    return ((ah * bh - product) + ah * bl + al * bh) + al * bl;
  }
}

struct Pair {
  VF hi, lo;
};

// ln(x) for positive, finite x.
FI_INLINE Pair log_pair(VF x) {
  const VF one = set1(1.f);
  const VM tiny = x < set1(0x1p-126f);
  const VI bits = as_int(select(tiny, x * set1(0x1p23f), x)), e = sra<23>(bits - set1i(0x3f3504f3));
  const VF m = as_float(bits - shl<23>(e)), n = to_float(e) + select(tiny, set1(-23.f), zero());
  // s = (m − 1)/(m + 1) in two floats; ln m = 2s + s³·P(s²)
  const VF f = m - one, d = m + one, d_lost = m - (d - one), s = f / d, sd = s * d;
  const VF s_lo = ((f - sd) - product_error(s, d, sd) - s * d_lost) / d;
  const VF t = s * s, p = poly(t, 0.6666666f, 0.40000334f, 0.2853731f, 0.23582152f);
  const VF a = n * set1(0x1.62e4p-1f), b = s + s, sum = a + b;  // n·hi is exact, |a| >= |b| or a = 0
  const VF big = select(n == zero(), b, sum), lost = select(n == zero(), zero(), b - (sum - a));
  const VF lo = fma(p * t, s, s_lo + s_lo) + fma(n, set1(1.4286068e-06f), lost);
  const VF hi = big + lo;
  return {hi, lo - (hi - big)};
}

FI_INLINE VF pow_positive(VF x, VF y) {
  const Pair l = log_pair(x);
  const VF z = clamp(y * l.hi, set1(-110.f), set1(95.f));
  // A clamped product overflows or vanishes whatever its error; keep that error from spoiling it.
  const VF error = fma(y, l.lo, product_error(y, l.hi, y * l.hi));
  const VF lo = select(abs(y * l.hi) < set1(110.f), error, zero());
  const VF n = round(z * set1(0x1.715476p+0f));
  const VF r = fnma(n, set1(1.4286068e-06f), fnma(n, set1(0x1.62e4p-1f), z)) + lo;
  const VF p = poly(r, 0.49999997f, 0.16666539f, 0.041667223f, 0.008367181f, 0.0013882396f);
  return scale2(fma(p * r, r, r) + set1(1.f), n);
}

}  // namespace detail

// pow, error 1.2 / 1.2, denormal results included.
FI_INLINE VF pow(VF x, VF y) {
  const VF one = set1(1.f), m = abs(x), half_y = y * set1(0.5f);
  const VM integral = round(y) == y, odd = integral & (round(half_y) != half_y);
  const VM zero_base = m == zero(), inf_base = m == infinity(), inf_power = abs(y) == infinity();
  VF r = detail::pow_positive(m, y);
  const VF grows = select(y > zero(), infinity(), zero()), shrinks = select(y > zero(), zero(), infinity());
  r = select(inf_power, select(m > one, grows, shrinks), r);
  r = select(zero_base, shrinks, select(inf_base, grows, r));
  r = select((m == one) & ~is_nan(y), one, r);
  const VM negative = set1i(0) > as_int(x);
  r = select(negative & odd, neg(r), r);
  r = select(negative & ~integral & ~zero_base & ~inf_base & (m == m), quiet_nan(), r);
  r = select(is_nan(x) | is_nan(y), quiet_nan(), r);
  return select((y == zero()) | (x == one), one, r);
}

}  // namespace fi::FI_ISA
