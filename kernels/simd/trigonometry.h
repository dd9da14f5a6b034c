// SPDX-License-Identifier: Apache-2.0
// Circular and hyperbolic functions and their inverses over VF. Same rules and error notes as kernels/simd/math.h.
#pragma once
#include "kernels/simd/math.h"

namespace fi::FI_ISA {

namespace detail {

// Bits of 2/π behind the point, 32 zero bits first so that a window may begin up to 32 bits early.
constexpr uint32_t kTwoOverPi[9] = {0,          0xa2f9836e, 0x4e441529, 0xfc2757d1, 0xf534ddc0,
                                    0xdb629599, 0x3c439041, 0xfe5163ab, 0xdebbc561};

// Payne and Hanek: x mod π/2 for any finite |x| >= 2^13, by multiplying the mantissa with the 96 bits of 2/π that
// matter.
static float reduce_huge(float x, int32_t* quadrant) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  const int exponent = static_cast<int>((bits >> 23) & 0xff) - 150;
  if (exponent > 104) {  // inf or NaN
    *quadrant = 0;
    return x - x;
  }
  const int first = exponent - 2 + 32;  // higher bits are multiples of 4 quarter turns
  unsigned __int128 window = 0;
  for (int word = first / 32, i = 0; i < 4; ++i) window = window << 32 | kTwoOverPi[word + i < 9 ? word + i : 8];
  window = (window << (first % 32)) >> 32;
  const unsigned __int128 product = window * ((bits & 0x7fffff) | 0x800000);
  const auto turns = static_cast<uint64_t>(product >> 32);  // quarter turns mod 4, 62 bits behind the point
  const auto rounded = (turns + (uint64_t{1} << 61)) >> 62;
  const auto rest = static_cast<int64_t>(turns - (rounded << 62));
  const double r = static_cast<double>(rest) * (1.5707963267948966 / 4611686018427387904.0);
  const bool negative = bits >> 31;
  *quadrant = static_cast<int32_t>(negative ? -rounded & 3 : rounded & 3);
  return static_cast<float>(negative ? -r : r);
}

struct Angle {
  VF r;        // in [-π/4, π/4]
  VI quarter;  // x = r + quarter·π/2 (mod 2π)
};
FI_INLINE Angle reduce_angle(VF x) {
  const VF n = round(x * set1(0.63661975f));
  // π/2 in parts of 11 bits: products with n < 2^13 are exact without a fused multiply-add.
  VF r = fnma(n, set1(0x1.92p+0f), x);
  r = fnma(n, set1(0x1.fb4p-12f), r);
  r = fnma(n, set1(0x1.444p-24f), r);
  r = fnma(n, set1(0x1.68c234p-39f), r);
  Angle a{r, to_int(n)};
  if (const VM huge = ~(abs(x) < set1(8192.f)); any(huge)) [[unlikely]] {
    float in[VF::W], out[VF::W];
    int32_t quarter[VF::W];
    store(in, x);
    for (int i = 0; i < VF::W; ++i) {
      out[i] = 0;
      quarter[i] = 0;
      if (!(__builtin_fabsf(in[i]) < 8192.f)) out[i] = reduce_huge(in[i], &quarter[i]);
    }
    a = {select(huge, load(out), a.r), select(huge, load(quarter), a.quarter)};
  }
  return a;
}
FI_INLINE VF sin_core(VF r) {
  const VF t = r * r;
  return fma(poly(t, -0.16666654f, 0.008332113f, -0.00019508741f) * t, r, r);
}
FI_INLINE VF cos_core(VF r) {
  const VF t = r * r, p = poly(t, 0.041666646f, -0.0013887251f, 2.442568e-05f);
  return fma(p * t, t, fnma(set1(0.5f), t, set1(1.f)));
}
FI_INLINE VM odd(VI a) { return (a & set1i(1)) == set1i(1); }
FI_INLINE VF negate_if(VI bit1, VF a) { return as_float(as_int(a) ^ (shl<30>(bit1 & set1i(2)))); }

// e^x / 2 without early overflow.
FI_INLINE VF half_exp(VF x) {
  const Reduced e = reduce_exp(clamp(x, set1(-104.f), set1(90.f)));
  return scale2(e.tail + set1(1.f), e.n - set1(1.f));
}

// asin on [0, 1/2].
FI_INLINE VF asin_core(VF x) {
  const VF t = x * x;
  return fma(poly(t, 0.16666774f, 0.07494316f, 0.045602325f, 0.023490194f, 0.043393616f) * t, x, x);
}

}  // namespace detail

// sin, error 1.9 / 1.9: any finite argument; NaN for ±inf.
FI_INLINE VF sin(VF x) {
  const detail::Angle a = detail::reduce_angle(x);
  const VF y = select(detail::odd(a.quarter), detail::cos_core(a.r), detail::sin_core(a.r));
  return detail::negate_if(a.quarter, y);
}
// cos, error 1.8 / 1.8.
FI_INLINE VF cos(VF x) {
  const detail::Angle a = detail::reduce_angle(x);
  const VF y = select(detail::odd(a.quarter), detail::sin_core(a.r), detail::cos_core(a.r));
  return detail::negate_if(a.quarter + set1i(1), y);
}
// tan, error 3.5 / 3.5.
FI_INLINE VF tan(VF x) {
  const detail::Angle a = detail::reduce_angle(x);
  const VF s = detail::sin_core(a.r), c = detail::cos_core(a.r);
  const VM odd = detail::odd(a.quarter);
  return select(odd, neg(c), s) / select(odd, s, c);
}

// asin, error 2.2 / 2.3.
FI_INLINE VF asin(VF x) {
  const VF m = abs(x), half = set1(0.5f);
  const VM large = m > half;
  const VF y = detail::asin_core(select(large, sqrt(fnma(half, m, half)), m));
  const VF turned = fnma(set1(2.f), y, set1(-4.371139e-08f)) + set1(1.5707964f);
  return copysign(select(large, turned, y), x);
}
// acos, error 1.2 / 1.2.
FI_INLINE VF acos(VF x) {
  const VF m = abs(x), half = set1(0.5f);
  const VM large = m > half;
  const VF y = detail::asin_core(select(large, sqrt(fnma(half, m, half)), m));
  const VF middle = set1(1.5707964f) - (copysign(y, x) + set1(4.371139e-08f));
  const VF twice = y + y, below = set1(3.1415927f) - (twice + set1(8.742278e-08f));
  return select(large, select(x < zero(), below, twice), middle);
}
// atan, error 1.4 / 1.5.
FI_INLINE VF atan(VF x) {
  const VF m = abs(x), one = set1(1.f);
  const VM large = m > one;
  const VF c = select(large, one / m, m), t = c * c;
  const VF p = detail::poly(t, -0.333333f, 0.19998549f, -0.14264242f, 0.10952186f, -0.08403451f, 0.0579576f,
                            -0.031177854f, 0.01091461f, -0.0017936226f);
  const VF y = fma(p * t, c, c);
  return copysign(select(large, set1(1.5707964f) - (y + set1(4.371139e-08f)), y), x);
}

// sinh, error 1.6 / 1.6.
FI_INLINE VF sinh(VF x) {
  const VF m = abs(x), t = m * m, e = detail::half_exp(m);
  const VF small = fma(detail::poly(t, 0.16666667f, 0.00833335f, 0.0001983616f, 2.816951e-06f) * t, m, m);
  return copysign(select(m < set1(1.f), small, e - set1(0.25f) / e), x);
}
// cosh, error 1.5 / 1.5.
FI_INLINE VF cosh(VF x) {
  const VF e = detail::half_exp(abs(x));
  return e + set1(0.25f) / e;
}
// asinh, error 2.0 / 2.0.
FI_INLINE VF asinh(VF x) {
  const VF m = abs(x), one = set1(1.f), t = m * m;
  const VF y = log1p(m + t / (one + sqrt(t + one)));
  return copysign(select(m > set1(1e10f), log(m) + set1(0.6931472f), y), x);
}
// acosh, error 2.3 / 2.3: NaN below 1.
FI_INLINE VF acosh(VF x) {
  const VF t = x - set1(1.f), y = log1p(t + sqrt(fma(t, t, t + t)));
  return select(x >= set1(1.f), select(x > set1(1e10f), log(x) + set1(0.6931472f), y), quiet_nan());
}
// atanh, error 2.3 / 2.3: ±inf at ±1, NaN beyond.
FI_INLINE VF atanh(VF x) {
  const VF m = abs(x), y = set1(0.5f) * log1p((m + m) / (set1(1.f) - m));
  return copysign(select(m == set1(1.f), infinity(), y), x);
}

}  // namespace fi::FI_ISA
