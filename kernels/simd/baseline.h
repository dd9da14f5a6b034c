// SPDX-License-Identifier: Apache-2.0
// 4 lanes in GCC's vector types: plain x86-64 (SSE2) and every other machine. Contract: kernels/simd/simd.h.
// There is no fused multiply-add: fma() rounds twice.
#pragma once
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace fi::FI_ISA {

namespace detail {
typedef float f4 __attribute__((vector_size(16)));
typedef int32_t i4 __attribute__((vector_size(16)));
typedef uint32_t u4 __attribute__((vector_size(16)));
}  // namespace detail

struct VF {
  static constexpr bool fused = false;  // fma() rounds twice
  static constexpr int W = 4;
  detail::f4 v;
};
struct VI {
  static constexpr int W = 4;
  detail::i4 v;
};
struct VM {
  detail::i4 v;  // all bits of a true lane are set
};

namespace detail {
template <class V>
FI_INLINE V load_whole(const void* p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class V>
FI_INLINE V load_part(const void* p, int n) {
  V v = {};
  std::memcpy(&v, p, static_cast<size_t>(n) * 4);
  return v;
}
}  // namespace detail

FI_INLINE VI lane_index() { return {detail::i4{0, 1, 2, 3}}; }
FI_INLINE VF set1(float x) { return {detail::f4{x, x, x, x}}; }
FI_INLINE VI set1i(int32_t x) { return {detail::i4{x, x, x, x}}; }
FI_INLINE VF zero() { return {detail::f4{}}; }
FI_INLINE VM first_n(int n) { return {lane_index().v < set1i(n).v}; }

FI_INLINE VF load(const float* p) { return {detail::load_whole<detail::f4>(p)}; }
FI_INLINE VF load(const float* p, int n) { return {detail::load_part<detail::f4>(p, n)}; }
FI_INLINE void store(float* p, VF a) { std::memcpy(p, &a.v, 16); }
FI_INLINE void store(float* p, VF a, int n) { std::memcpy(p, &a.v, static_cast<size_t>(n) * 4); }
FI_INLINE VI load(const int32_t* p) { return {detail::load_whole<detail::i4>(p)}; }
FI_INLINE VI load(const int32_t* p, int n) { return {detail::load_part<detail::i4>(p, n)}; }
FI_INLINE void store(int32_t* p, VI a) { std::memcpy(p, &a.v, 16); }
FI_INLINE void store(int32_t* p, VI a, int n) { std::memcpy(p, &a.v, static_cast<size_t>(n) * 4); }

FI_INLINE VI as_int(VF a) { return {reinterpret_cast<detail::i4>(a.v)}; }
FI_INLINE VF as_float(VI a) { return {reinterpret_cast<detail::f4>(a.v)}; }

FI_INLINE VF operator+(VF a, VF b) { return {a.v + b.v}; }
FI_INLINE VF operator-(VF a, VF b) { return {a.v - b.v}; }
FI_INLINE VF operator*(VF a, VF b) { return {a.v * b.v}; }
FI_INLINE VF operator/(VF a, VF b) { return {a.v / b.v}; }
FI_INLINE VF neg(VF a) { return as_float({as_int(a).v ^ INT32_MIN}); }
FI_INLINE VF fma(VF a, VF b, VF c) { return {a.v * b.v + c.v}; }
FI_INLINE VF fms(VF a, VF b, VF c) { return {a.v * b.v - c.v}; }
FI_INLINE VF fnma(VF a, VF b, VF c) { return {c.v - a.v * b.v}; }
FI_INLINE VF min(VF a, VF b) { return {a.v < b.v ? a.v : b.v}; }
FI_INLINE VF max(VF a, VF b) { return {a.v > b.v ? a.v : b.v}; }
FI_INLINE VF abs(VF a) { return as_float({as_int(a).v & INT32_MAX}); }
FI_INLINE VF sqrt(VF a) {
#if defined(__SSE2__)
  return {_mm_sqrt_ps(a.v)};
#else
  return {
      detail::f4{__builtin_sqrtf(a.v[0]), __builtin_sqrtf(a.v[1]), __builtin_sqrtf(a.v[2]), __builtin_sqrtf(a.v[3])}};
#endif
}

FI_INLINE VM operator<(VF a, VF b) { return {a.v < b.v}; }
FI_INLINE VM operator<=(VF a, VF b) { return {a.v <= b.v}; }
FI_INLINE VM operator>(VF a, VF b) { return {a.v > b.v}; }
FI_INLINE VM operator>=(VF a, VF b) { return {a.v >= b.v}; }
FI_INLINE VM operator==(VF a, VF b) { return {a.v == b.v}; }
FI_INLINE VM operator!=(VF a, VF b) { return {a.v != b.v}; }
FI_INLINE VM is_nan(VF a) { return {a.v != a.v}; }
FI_INLINE VM operator&(VM a, VM b) { return {a.v & b.v}; }
FI_INLINE VM operator|(VM a, VM b) { return {a.v | b.v}; }
FI_INLINE VM operator^(VM a, VM b) { return {a.v ^ b.v}; }
FI_INLINE VM operator~(VM a) { return {~a.v}; }
FI_INLINE bool any(VM a) { return (a.v[0] | a.v[1] | a.v[2] | a.v[3]) != 0; }
FI_INLINE bool all(VM a) { return (a.v[0] & a.v[1] & a.v[2] & a.v[3]) != 0; }
FI_INLINE VF select(VM m, VF a, VF b) { return {m.v ? a.v : b.v}; }
FI_INLINE VI select(VM m, VI a, VI b) { return {m.v ? a.v : b.v}; }

namespace detail {
// Adding and subtracting 2^23 rounds half to even below 2^23; above, every float is integral (and NaN and inf pass).
FI_INLINE VF with_sign(VF magnitude, VF sign) { return as_float({as_int(magnitude).v | (as_int(sign).v & INT32_MIN)}); }
}  // namespace detail
FI_INLINE VF round(VF a) {
  const VF big = set1(8388608.f), m = abs(a);
  return select(m < big, detail::with_sign((m + big) - big, a), a);
}
FI_INLINE VF floor(VF a) {
  const VF r = round(a);
  return detail::with_sign(abs(r - select(r > a, set1(1.f), zero())), a);
}
FI_INLINE VF ceil(VF a) {
  const VF r = round(a);
  return detail::with_sign(abs(r + select(r < a, set1(1.f), zero())), a);
}
FI_INLINE VF trunc(VF a) { return detail::with_sign(floor(abs(a)), a); }

namespace detail {
FI_INLINE u4 bits(VI a) { return reinterpret_cast<u4>(a.v); }
FI_INLINE VI ints(u4 a) { return {reinterpret_cast<i4>(a)}; }
}  // namespace detail
FI_INLINE VI operator+(VI a, VI b) { return detail::ints(detail::bits(a) + detail::bits(b)); }
FI_INLINE VI operator-(VI a, VI b) { return detail::ints(detail::bits(a) - detail::bits(b)); }
FI_INLINE VI operator*(VI a, VI b) { return detail::ints(detail::bits(a) * detail::bits(b)); }
FI_INLINE VI operator&(VI a, VI b) { return {a.v & b.v}; }
FI_INLINE VI operator|(VI a, VI b) { return {a.v | b.v}; }
FI_INLINE VI operator^(VI a, VI b) { return {a.v ^ b.v}; }
FI_INLINE VM operator==(VI a, VI b) { return {a.v == b.v}; }
FI_INLINE VM operator>(VI a, VI b) { return {a.v > b.v}; }
FI_INLINE VI min(VI a, VI b) { return {a.v < b.v ? a.v : b.v}; }
FI_INLINE VI max(VI a, VI b) { return {a.v > b.v ? a.v : b.v}; }
template <int kBits>
FI_INLINE VI shl(VI a) {
  return detail::ints(detail::bits(a) << kBits);
}
template <int kBits>
FI_INLINE VI sra(VI a) {
  return {a.v >> kBits};
}
template <int kBits>
FI_INLINE VI srl(VI a) {
  return detail::ints(detail::bits(a) >> kBits);
}

FI_INLINE VI to_int_trunc(VF a) {
#if defined(__SSE2__)
  return {reinterpret_cast<detail::i4>(_mm_cvttps_epi32(a.v))};
#else
  return {__builtin_convertvector(a.v, detail::i4)};
#endif
}
FI_INLINE VI to_int(VF a) { return to_int_trunc(round(a)); }
FI_INLINE VF to_float(VI a) { return {__builtin_convertvector(a.v, detail::f4)}; }
// In two factors, so that 2^-149 and 2^128 are within reach.
FI_INLINE VF scale2(VF a, VF n) {
  const VI whole = to_int_trunc(n), half = sra<1>(whole), bias = set1i(127);
  return a * as_float(shl<23>(half + bias)) * as_float(shl<23>(whole - half + bias));
}

namespace detail {
template <class T>
FI_INLINE VI widen(const T* p, int n) {
  T e[4] = {};
  std::memcpy(e, p, static_cast<size_t>(n) * sizeof(T));
  return {i4{e[0], e[1], e[2], e[3]}};
}
template <class T>
FI_INLINE void narrow(T* p, VI a, int n) {
  const T e[4] = {static_cast<T>(a.v[0]), static_cast<T>(a.v[1]), static_cast<T>(a.v[2]), static_cast<T>(a.v[3])};
  std::memcpy(p, e, static_cast<size_t>(n) * sizeof(T));
}
}  // namespace detail

FI_INLINE VF load_u8(const uint8_t* p, int n = 4) { return to_float(detail::widen(p, n)); }
FI_INLINE VF load_s8(const int8_t* p, int n = 4) { return to_float(detail::widen(p, n)); }
FI_INLINE VF load_u16(const uint16_t* p, int n = 4) { return to_float(detail::widen(p, n)); }
FI_INLINE VF load_s16(const int16_t* p, int n = 4) { return to_float(detail::widen(p, n)); }
FI_INLINE VF load_s32(const int32_t* p, int n = 4) { return to_float(load(p, n)); }
FI_INLINE VF load_bf16(const uint16_t* p, int n = 4) { return as_float(shl<16>(detail::widen(p, n))); }
FI_INLINE VF load_f16(const uint16_t* p, int n = 4) {
  const VI h = detail::widen(p, n), shifted = shl<13>(h & set1i(0x7fff));
  const VF scaled = as_float(shifted) * set1(0x1p112f);  // exact, denormals included
  const VI special = as_int(scaled) | set1i(0xff << 23);
  const VI magnitude = select(shifted > set1i((31 << 23) - 1), special, as_int(scaled));
  return as_float(magnitude | shl<16>(h & set1i(0x8000)));
}

FI_INLINE void store_u8(uint8_t* p, VF a, int n = 4) {
  detail::narrow(p, to_int(min(max(a, zero()), set1(255.f))), n);  // 0 as the second operand: NaN → 0
}
FI_INLINE void store_s8(int8_t* p, VF a, int n = 4) {
  detail::narrow(p, to_int(min(max(a, set1(-128.f)), set1(127.f))), n);
}
FI_INLINE void store_bf16(uint16_t* p, VF a, int n = 4) {
  const VI bits = as_int(a), odd = srl<16>(bits) & set1i(1);
  const VI even = srl<16>(bits + odd + set1i(0x7fff)), quiet = srl<16>(bits) | set1i(0x40);
  detail::narrow(p, select(is_nan(a), quiet, even), n);
}
FI_INLINE void store_f16(uint16_t* p, VF a, int n = 4) {
  const VI bits = as_int(a), m = bits & set1i(INT32_MAX), sign = srl<16>(bits) & set1i(0x8000);
  const VI odd = srl<13>(m) & set1i(1);
  const VI normal = srl<13>(m + odd + set1i(((15 - 127) * (1 << 23)) + 0xfff));
  const VI magic = set1i((127 - 15 + 23 - 10 + 1) << 23);  // adding it aligns the denormal's bits and rounds them
  const VI denormal = as_int(as_float(m) + as_float(magic)) - magic;
  const VI inf = set1i(0x7c00), nan = set1i(0x7e00) | (srl<13>(m) & set1i(0x3ff));
  VI h = select(set1i(113 << 23) > m, denormal, normal);
  h = select(m > set1i((143 << 23) - 1), select(is_nan(a), nan, inf), h);
  detail::narrow(p, h | sign, n);
}

FI_INLINE VM load_mask(const uint8_t* p, int n = 4) { return {detail::widen(p, n).v != 0}; }
FI_INLINE void store_mask(uint8_t* p, VM m, int n = 4) { detail::narrow(p, {m.v & 1}, n); }

FI_INLINE float reduce_add(VF a) { return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]); }
namespace detail {
FI_INLINE float max1(float a, float b) { return a > b ? a : b; }
FI_INLINE float min1(float a, float b) { return a < b ? a : b; }
}  // namespace detail
FI_INLINE float reduce_max(VF a) { return detail::max1(detail::max1(a.v[0], a.v[2]), detail::max1(a.v[1], a.v[3])); }
FI_INLINE float reduce_min(VF a) { return detail::min1(detail::min1(a.v[0], a.v[2]), detail::min1(a.v[1], a.v[3])); }

}  // namespace fi::FI_ISA
