// SPDX-License-Identifier: Apache-2.0
// exp, log, erf, tanh and the activations built on them, over VF. Polynomials: our own minimax fits (Lawson iteration).
// Errors are the largest found against float64 over all floats (stride 997) with / without fused multiply-add, in ulp
// of the result; tests/test_simd_math.py holds them. A lane's bits do not depend on its position. NaN gives NaN.
#pragma once
#include "kernels/simd/simd.h"

namespace fi::FI_ISA {

namespace detail {

// Horner: c0 + x·(c1 + x·(c2 + ...)).
FI_INLINE VF poly(VF, float c0) { return set1(c0); }
template <class... Rest>
FI_INLINE VF poly(VF x, float c0, Rest... rest) {
  return fma(poly(x, rest...), x, set1(c0));
}

struct Reduced {
  VF n, tail;  // e^x = 2^n · (1 + tail), |tail| < 0.42
};
// x in [-126·5, 126·5] or NaN. 15 bits of ln 2 in the first part keep n·hi exact without a fused multiply-add.
FI_INLINE Reduced reduce_exp(VF x) {
  const VF n = round(x * set1(0x1.715476p+0f));
  const VF r = fnma(n, set1(1.4286068e-06f), fnma(n, set1(0x1.62e4p-1f), x));
  const VF p = poly(r, 0.49999997f, 0.16666539f, 0.041667223f, 0.008367181f, 0.0013882396f);
  return {n, fma(p * r, r, r)};
}

// log of a positive, finite, normal number.
FI_INLINE VF log_normal(VF x, VF extra_exponent) {
  const VI bits = as_int(x), e = sra<23>(bits - set1i(0x3f3504f3));  // mantissa in [sqrt(1/2), sqrt(2))
  const VF f = as_float(bits - shl<23>(e)) - set1(1.f), n = to_float(e) + extra_exponent, f2 = f * f;
  const VF p =
      poly(f, 0.3333333f, -0.2500082f, 0.20001227f, -0.16623357f, 0.14201757f, -0.13160183f, 0.12761576f, -0.07634497f);
  VF y = fma(n, set1(1.4286068e-06f), p * f * f2);
  y = f + fnma(set1(0.5f), f2, y);
  return fma(n, set1(0x1.62e4p-1f), y);
}

// log(1 + u) for u in [0, 1].
FI_INLINE VF log1p_unit(VF u) {
  const VF w = u + set1(1.f);
  return log_normal(w, zero()) + (u - (w - set1(1.f))) / w;
}

}  // namespace detail

FI_INLINE VF copysign(VF magnitude, VF sign) {
  return as_float((as_int(magnitude) & set1i(INT32_MAX)) | (as_int(sign) & set1i(INT32_MIN)));
}
FI_INLINE VF infinity() { return as_float(set1i(0x7f800000)); }
FI_INLINE VF quiet_nan() { return as_float(set1i(0x7fc00000)); }

// exp, error 1.0 / 1.0: inf above 88.72, denormal results rounded, 0 below -103.97.
FI_INLINE VF exp(VF x) {
  const detail::Reduced e = detail::reduce_exp(clamp(x, set1(-104.f), set1(89.f)));
  return scale2(e.tail + set1(1.f), e.n);
}

// exp2, error 1.1 / 1.0.
FI_INLINE VF exp2(VF x) {
  x = clamp(x, set1(-151.f), set1(129.f));
  const VF n = round(x), r = (x - n) * set1(0x1.62e43p-1f);
  const VF p = detail::poly(r, 0.49999997f, 0.16666539f, 0.041667223f, 0.008367181f, 0.0013882396f);
  return scale2(fma(p * r, r, r) + set1(1.f), n);
}

// expm1, error 1.6 / 1.7.
FI_INLINE VF expm1(VF x) {
  const detail::Reduced e = detail::reduce_exp(clamp(x, set1(-30.f), set1(89.f)));
  const VF half = scale2(set1(0.5f), e.n);  // halved: 2^128 is not a float
  const VF y = fma(e.tail, half, half - set1(0.5f));
  return y + y;
}

// log, error 0.9 / 0.9: -inf for 0, NaN below, denormal arguments exact.
FI_INLINE VF log(VF x) {
  const VM tiny = x < set1(0x1p-126f);
  const VF y = detail::log_normal(select(tiny, x * set1(0x1p23f), x), select(tiny, set1(-23.f), zero()));
  const VF at_edge = select(x == zero(), neg(infinity()), quiet_nan());
  return select(x > zero(), select(x == infinity(), x, y), at_edge);
}

// log1p, error 1.5 / 1.5: NaN below -1.
FI_INLINE VF log1p(VF x) {
  const VF one = set1(1.f), w = x + one, whole = w - one;
  const VF lost = (one - (w - whole)) + (x - whole);  // w + lost = 1 + x exactly
  const VF y = log(w);
  return select((w > zero()) & (w < infinity()), y + lost / w, y);
}

// erf, error 5.0 / 6.9 (all of it just below 1: 4e-7 absolute; 3 for |x| < 2): ±1 from |x| = 3.93 on.
FI_INLINE VF erf(VF x) {
  const VF one = set1(1.f), c = clamp(x, set1(-3.93f), set1(3.93f)), t = c * c;
  const VF p = detail::poly(t, 1.3061892f, 0.22061864f, 0.061079517f, 0.004365679f, 0.0003295271f, 2.3661494e-06f);
  const VF q = detail::poly(t, 1.15758f, 0.5813775f, 0.13216835f, 0.017341532f, 0.0013466215f, 4.400931e-05f);
  return clamp(c * p / q, neg(one), one);
}

// tanh, error 4.6 / 6.2 (just below 1: 4e-7 absolute): ±1 from |x| = 9.04 on.
FI_INLINE VF tanh(VF x) {
  const VF one = set1(1.f), c = clamp(x, set1(-9.04f), set1(9.04f)), t = c * c;
  const VF p = detail::poly(t, 1.1629817f, 0.15561274f, 0.0040645497f, 2.3954584e-05f, 1.5510683e-08f);
  const VF q = detail::poly(t, 1.1629817f, 0.54327315f, 0.030091645f, 0.00038198568f, 9.0360123e-07f);
  return clamp(c * p / q, neg(one), one);
}

// sigmoid, error 2.5 / 2.5: 0 below -88.72, where the true value is denormal.
FI_INLINE VF sigmoid(VF x) { return set1(1.f) / (set1(1.f) + exp(neg(x))); }

// softplus, error 2.1 / 2.1: log(1 + e^x).
FI_INLINE VF softplus(VF x) { return max(zero(), x) + detail::log1p_unit(exp(neg(abs(x)))); }

// silu, error 2e-7 / 2e-7 of max(|x|, 1): x·sigmoid(x); NaN for -inf, as the formula says.
FI_INLINE VF silu(VF x) { return x / (set1(1.f) + exp(neg(x))); }

// x·sigmoid(alpha·x).
FI_INLINE VF quick_gelu(VF x, VF alpha) { return x / (set1(1.f) + exp(neg(alpha * x))); }

// gelu, error 2e-7 / 3e-7 of max(|x|, 1): x/2·(1 + erf(x/√2)).
FI_INLINE VF gelu(VF x) {
  const VF half = x * set1(0.5f);
  return fma(half, erf(x * set1(0.70710678f)), half);
}

// gelu_tanh, error 2e-7 / 2e-7 of max(|x|, 1): x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³))) = x·sigmoid(2·√(2/π)·(...)).
FI_INLINE VF gelu_tanh(VF x) {
  const VF inner = x * fma(x * x, set1(0.07135481f), set1(1.5957691f));
  return x / (set1(1.f) + exp(neg(inner)));
}

// mish, error 2e-7 / 2e-7 of max(|x|, 1): x·tanh(softplus(x)) = x·m/(m + 2) with m = e^x·(e^x + 2); from x = 20 on m/(m
// + 2) is 1.
FI_INLINE VF mish(VF x) {
  const VF e = exp(clamp(x, set1(-104.f), set1(20.f))), m = e * (e + set1(2.f));
  return x * (m / (m + set1(2.f)));
}

FI_INLINE VF softsign(VF x) { return x / (set1(1.f) + abs(x)); }
FI_INLINE VF relu(VF x) { return max(zero(), x); }
FI_INLINE VF leaky_relu(VF x, VF alpha) { return select(x < zero(), x * alpha, x); }
FI_INLINE VF elu(VF x, VF alpha) { return select(x < zero(), alpha * expm1(min(x, zero())), x); }
FI_INLINE VF hard_sigmoid(VF x, VF alpha, VF beta) { return clamp(fma(x, alpha, beta), zero(), set1(1.f)); }
FI_INLINE VF hard_swish(VF x) { return x * hard_sigmoid(x, set1(1.f / 6), set1(0.5f)); }
FI_INLINE VF rsqrt(VF x) { return set1(1.f) / sqrt(x); }

}  // namespace fi::FI_ISA
