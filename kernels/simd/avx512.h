// SPDX-License-Identifier: Apache-2.0
// 16 lanes. Contract: kernels/simd/simd.h.
#pragma once
#include <immintrin.h>

namespace fi::FI_ISA {

struct VF {
  static constexpr bool fused = true;  // fma() rounds once
  static constexpr int W = 16;
  __m512 v;
};
struct VI {
  static constexpr int W = 16;
  __m512i v;
};
struct VM {
  __mmask16 v;
};

FI_INLINE VM first_n(int n) { return {static_cast<__mmask16>((1u << n) - 1)}; }

FI_INLINE VF load(const float* p) { return {_mm512_loadu_ps(p)}; }
FI_INLINE VF load(const float* p, int n) { return {_mm512_maskz_loadu_ps(first_n(n).v, p)}; }
FI_INLINE void store(float* p, VF a) { _mm512_storeu_ps(p, a.v); }
FI_INLINE void store(float* p, VF a, int n) { _mm512_mask_storeu_ps(p, first_n(n).v, a.v); }
FI_INLINE VI load(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
FI_INLINE VI load(const int32_t* p, int n) { return {_mm512_maskz_loadu_epi32(first_n(n).v, p)}; }
FI_INLINE void store(int32_t* p, VI a) { _mm512_storeu_si512(p, a.v); }
FI_INLINE void store(int32_t* p, VI a, int n) { _mm512_mask_storeu_epi32(p, first_n(n).v, a.v); }

FI_INLINE VF set1(float x) { return {_mm512_set1_ps(x)}; }
FI_INLINE VI set1i(int32_t x) { return {_mm512_set1_epi32(x)}; }
FI_INLINE VF zero() { return {_mm512_setzero_ps()}; }
FI_INLINE VI lane_index() { return {_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)}; }

FI_INLINE VF operator+(VF a, VF b) { return {_mm512_add_ps(a.v, b.v)}; }
FI_INLINE VF operator-(VF a, VF b) { return {_mm512_sub_ps(a.v, b.v)}; }
FI_INLINE VF operator*(VF a, VF b) { return {_mm512_mul_ps(a.v, b.v)}; }
FI_INLINE VF operator/(VF a, VF b) { return {_mm512_div_ps(a.v, b.v)}; }
FI_INLINE VF neg(VF a) { return {_mm512_xor_ps(a.v, _mm512_set1_ps(-0.f))}; }
FI_INLINE VF fma(VF a, VF b, VF c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
FI_INLINE VF fms(VF a, VF b, VF c) { return {_mm512_fmsub_ps(a.v, b.v, c.v)}; }
FI_INLINE VF fnma(VF a, VF b, VF c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
FI_INLINE VF min(VF a, VF b) { return {_mm512_min_ps(a.v, b.v)}; }
FI_INLINE VF max(VF a, VF b) { return {_mm512_max_ps(a.v, b.v)}; }
FI_INLINE VF abs(VF a) { return {_mm512_abs_ps(a.v)}; }
FI_INLINE VF sqrt(VF a) { return {_mm512_sqrt_ps(a.v)}; }
FI_INLINE VF floor(VF a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)}; }
FI_INLINE VF ceil(VF a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC)}; }
FI_INLINE VF round(VF a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
FI_INLINE VF trunc(VF a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC)}; }

FI_INLINE VM operator<(VF a, VF b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
FI_INLINE VM operator<=(VF a, VF b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)}; }
FI_INLINE VM operator>(VF a, VF b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ)}; }
FI_INLINE VM operator>=(VF a, VF b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ)}; }
FI_INLINE VM operator==(VF a, VF b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
FI_INLINE VM operator!=(VF a, VF b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_NEQ_UQ)}; }
FI_INLINE VM is_nan(VF a) { return {_mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q)}; }
FI_INLINE VM operator&(VM a, VM b) { return {static_cast<__mmask16>(a.v & b.v)}; }
FI_INLINE VM operator|(VM a, VM b) { return {static_cast<__mmask16>(a.v | b.v)}; }
FI_INLINE VM operator^(VM a, VM b) { return {static_cast<__mmask16>(a.v ^ b.v)}; }
FI_INLINE VM operator~(VM a) { return {static_cast<__mmask16>(~a.v)}; }
FI_INLINE bool any(VM a) { return a.v != 0; }
FI_INLINE bool all(VM a) { return a.v == 0xffff; }
FI_INLINE VF select(VM m, VF a, VF b) { return {_mm512_mask_blend_ps(m.v, b.v, a.v)}; }
FI_INLINE VI select(VM m, VI a, VI b) { return {_mm512_mask_blend_epi32(m.v, b.v, a.v)}; }

FI_INLINE VI operator+(VI a, VI b) { return {_mm512_add_epi32(a.v, b.v)}; }
FI_INLINE VI operator-(VI a, VI b) { return {_mm512_sub_epi32(a.v, b.v)}; }
FI_INLINE VI operator*(VI a, VI b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
FI_INLINE VI operator&(VI a, VI b) { return {_mm512_and_si512(a.v, b.v)}; }
FI_INLINE VI operator|(VI a, VI b) { return {_mm512_or_si512(a.v, b.v)}; }
FI_INLINE VI operator^(VI a, VI b) { return {_mm512_xor_si512(a.v, b.v)}; }
FI_INLINE VM operator==(VI a, VI b) { return {_mm512_cmpeq_epi32_mask(a.v, b.v)}; }
FI_INLINE VM operator>(VI a, VI b) { return {_mm512_cmpgt_epi32_mask(a.v, b.v)}; }
FI_INLINE VI min(VI a, VI b) { return {_mm512_min_epi32(a.v, b.v)}; }
FI_INLINE VI max(VI a, VI b) { return {_mm512_max_epi32(a.v, b.v)}; }
template <int kBits>
FI_INLINE VI shl(VI a) {
  return {_mm512_slli_epi32(a.v, kBits)};
}
template <int kBits>
FI_INLINE VI sra(VI a) {
  return {_mm512_srai_epi32(a.v, kBits)};
}
template <int kBits>
FI_INLINE VI srl(VI a) {
  return {_mm512_srli_epi32(a.v, kBits)};
}

FI_INLINE VI to_int(VF a) { return {_mm512_cvtps_epi32(a.v)}; }
FI_INLINE VI to_int_trunc(VF a) { return {_mm512_cvttps_epi32(a.v)}; }
FI_INLINE VF to_float(VI a) { return {_mm512_cvtepi32_ps(a.v)}; }
FI_INLINE VI as_int(VF a) { return {_mm512_castps_si512(a.v)}; }
FI_INLINE VF as_float(VI a) { return {_mm512_castsi512_ps(a.v)}; }
FI_INLINE VF scale2(VF a, VF n) { return {_mm512_scalef_ps(a.v, n.v)}; }

FI_INLINE VF load_u8(const uint8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
FI_INLINE VF load_u8(const uint8_t* p, int n) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(first_n(n).v, p)))};
}
FI_INLINE VF load_s8(const int8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
FI_INLINE VF load_s8(const int8_t* p, int n) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(first_n(n).v, p)))};
}
FI_INLINE VF load_u16(const uint16_t* p, int n = 16) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first_n(n).v, p)))};
}
FI_INLINE VF load_s16(const int16_t* p, int n = 16) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(first_n(n).v, p)))};
}
FI_INLINE VF load_s32(const int32_t* p) { return to_float(load(p)); }
FI_INLINE VF load_s32(const int32_t* p, int n) { return to_float(load(p, n)); }
FI_INLINE VF load_f16(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
FI_INLINE VF load_f16(const uint16_t* p, int n) { return {_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_n(n).v, p))}; }
FI_INLINE VF load_bf16(const uint16_t* p) {
  const __m256i h = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16))};
}
FI_INLINE VF load_bf16(const uint16_t* p, int n) {
  const __m256i h = _mm256_maskz_loadu_epi16(first_n(n).v, p);
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16))};
}

namespace detail {
FI_INLINE __m128i to_u8(VF a) {
  // max with 0 as the second operand: NaN → 0, and the later unsigned saturation sees no negative number.
  const __m512 x = _mm512_min_ps(_mm512_max_ps(a.v, _mm512_setzero_ps()), _mm512_set1_ps(255.f));
  return _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(x));
}
FI_INLINE __m128i to_s8(VF a) {
  const __m512 x = _mm512_min_ps(_mm512_max_ps(a.v, _mm512_set1_ps(-128.f)), _mm512_set1_ps(127.f));
  return _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x));
}
FI_INLINE __m256i to_f16(VF a) { return _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
FI_INLINE __m256i to_bf16(VF a) {
#ifdef __AVX512BF16__  // takes denormals as 0, as the products of this set do
  return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(a.v));
#else
  const __m512i bits = _mm512_castps_si512(a.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i even = _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
  const __m512i quiet = _mm512_or_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(0x40));
  return _mm512_cvtepi32_epi16(_mm512_mask_blend_epi32(is_nan(a).v, even, quiet));
#endif
}
}  // namespace detail

FI_INLINE void store_u8(uint8_t* p, VF a) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), detail::to_u8(a)); }
FI_INLINE void store_u8(uint8_t* p, VF a, int n) { _mm_mask_storeu_epi8(p, first_n(n).v, detail::to_u8(a)); }
FI_INLINE void store_s8(int8_t* p, VF a) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), detail::to_s8(a)); }
FI_INLINE void store_s8(int8_t* p, VF a, int n) { _mm_mask_storeu_epi8(p, first_n(n).v, detail::to_s8(a)); }
FI_INLINE void store_f16(uint16_t* p, VF a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), detail::to_f16(a)); }
FI_INLINE void store_f16(uint16_t* p, VF a, int n) { _mm256_mask_storeu_epi16(p, first_n(n).v, detail::to_f16(a)); }
FI_INLINE void store_bf16(uint16_t* p, VF a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), detail::to_bf16(a)); }
FI_INLINE void store_bf16(uint16_t* p, VF a, int n) { _mm256_mask_storeu_epi16(p, first_n(n).v, detail::to_bf16(a)); }

FI_INLINE VM load_mask(const uint8_t* p) {
  const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm_test_epi8_mask(b, b)};
}
FI_INLINE VM load_mask(const uint8_t* p, int n) {
  const __m128i b = _mm_maskz_loadu_epi8(first_n(n).v, p);
  return {_mm_test_epi8_mask(b, b)};
}
FI_INLINE void store_mask(uint8_t* p, VM m) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_maskz_set1_epi8(m.v, 1));
}
FI_INLINE void store_mask(uint8_t* p, VM m, int n) {
  _mm_mask_storeu_epi8(p, first_n(n).v, _mm_maskz_set1_epi8(m.v, 1));
}

namespace detail {
FI_INLINE __m256 low(__m512 a) { return _mm512_castps512_ps256(a); }
FI_INLINE __m256 high(__m512 a) { return _mm512_extractf32x8_ps(a, 1); }
FI_INLINE __m128 low(__m256 a) { return _mm256_castps256_ps128(a); }
FI_INLINE __m128 high(__m256 a) { return _mm256_extractf128_ps(a, 1); }
FI_INLINE __m128 high(__m128 a) { return _mm_movehl_ps(a, a); }
FI_INLINE __m128 second(__m128 a) { return _mm_shuffle_ps(a, a, 1); }
}  // namespace detail

FI_INLINE float reduce_add(VF a) {
  const __m256 h = _mm256_add_ps(detail::low(a.v), detail::high(a.v));
  const __m128 q = _mm_add_ps(detail::low(h), detail::high(h));
  const __m128 e = _mm_add_ps(q, detail::high(q));
  return _mm_cvtss_f32(_mm_add_ss(e, detail::second(e)));
}
FI_INLINE float reduce_max(VF a) {
  const __m256 h = _mm256_max_ps(detail::low(a.v), detail::high(a.v));
  const __m128 q = _mm_max_ps(detail::low(h), detail::high(h));
  const __m128 e = _mm_max_ps(q, detail::high(q));
  return _mm_cvtss_f32(_mm_max_ss(e, detail::second(e)));
}
FI_INLINE float reduce_min(VF a) {
  const __m256 h = _mm256_min_ps(detail::low(a.v), detail::high(a.v));
  const __m128 q = _mm_min_ps(detail::low(h), detail::high(h));
  const __m128 e = _mm_min_ps(q, detail::high(q));
  return _mm_cvtss_f32(_mm_min_ss(e, detail::second(e)));
}

}  // namespace fi::FI_ISA
