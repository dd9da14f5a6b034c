// SPDX-License-Identifier: Apache-2.0
// 8 lanes, with FMA and F16C. Contract: kernels/simd/simd.h.
#pragma once
#include <immintrin.h>

namespace fi::FI_ISA {

struct VF {
  static constexpr bool fused = true;  // fma() rounds once
  static constexpr int W = 8;
  __m256 v;
};
struct VI {
  static constexpr int W = 8;
  __m256i v;
};
struct VM {
  __m256 v;  // all bits of a true lane are set
};

namespace detail {
FI_INLINE __m256i mask_n(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
// The first n elements of kBytes bytes in the low part of a register, the rest 0: there is no masked byte load here.
template <int kBytes>
FI_INLINE __m128i load_part(const void* p, int n) {
  alignas(16) char buffer[16] = {};
  std::memcpy(buffer, p, static_cast<size_t>(n) * kBytes);
  return _mm_load_si128(reinterpret_cast<const __m128i*>(buffer));
}
template <int kBytes>
FI_INLINE void store_part(void* p, __m128i a, int n) {
  alignas(16) char buffer[16];
  _mm_store_si128(reinterpret_cast<__m128i*>(buffer), a);
  std::memcpy(p, buffer, static_cast<size_t>(n) * kBytes);
}
FI_INLINE __m128i load_8_bytes(const void* p) { return _mm_loadl_epi64(static_cast<const __m128i*>(p)); }
FI_INLINE __m128i load_16_bytes(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
FI_INLINE __m256 from_ints(__m256i a) { return _mm256_cvtepi32_ps(a); }
FI_INLINE __m256 from_bf16(__m128i h) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16)); }
}  // namespace detail

FI_INLINE VM first_n(int n) { return {_mm256_castsi256_ps(detail::mask_n(n))}; }

FI_INLINE VF load(const float* p) { return {_mm256_loadu_ps(p)}; }
FI_INLINE VF load(const float* p, int n) { return {_mm256_maskload_ps(p, detail::mask_n(n))}; }
FI_INLINE void store(float* p, VF a) { _mm256_storeu_ps(p, a.v); }
FI_INLINE void store(float* p, VF a, int n) { _mm256_maskstore_ps(p, detail::mask_n(n), a.v); }
FI_INLINE VI load(const int32_t* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }
FI_INLINE VI load(const int32_t* p, int n) { return {_mm256_maskload_epi32(p, detail::mask_n(n))}; }
FI_INLINE void store(int32_t* p, VI a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.v); }
FI_INLINE void store(int32_t* p, VI a, int n) { _mm256_maskstore_epi32(p, detail::mask_n(n), a.v); }

FI_INLINE VF set1(float x) { return {_mm256_set1_ps(x)}; }
FI_INLINE VI set1i(int32_t x) { return {_mm256_set1_epi32(x)}; }
FI_INLINE VF zero() { return {_mm256_setzero_ps()}; }
FI_INLINE VI lane_index() { return {_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)}; }

FI_INLINE VF operator+(VF a, VF b) { return {_mm256_add_ps(a.v, b.v)}; }
FI_INLINE VF operator-(VF a, VF b) { return {_mm256_sub_ps(a.v, b.v)}; }
FI_INLINE VF operator*(VF a, VF b) { return {_mm256_mul_ps(a.v, b.v)}; }
FI_INLINE VF operator/(VF a, VF b) { return {_mm256_div_ps(a.v, b.v)}; }
FI_INLINE VF neg(VF a) { return {_mm256_xor_ps(a.v, _mm256_set1_ps(-0.f))}; }
FI_INLINE VF fma(VF a, VF b, VF c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
FI_INLINE VF fms(VF a, VF b, VF c) { return {_mm256_fmsub_ps(a.v, b.v, c.v)}; }
FI_INLINE VF fnma(VF a, VF b, VF c) { return {_mm256_fnmadd_ps(a.v, b.v, c.v)}; }
FI_INLINE VF min(VF a, VF b) { return {_mm256_min_ps(a.v, b.v)}; }
FI_INLINE VF max(VF a, VF b) { return {_mm256_max_ps(a.v, b.v)}; }
FI_INLINE VF abs(VF a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.f), a.v)}; }
FI_INLINE VF sqrt(VF a) { return {_mm256_sqrt_ps(a.v)}; }
FI_INLINE VF floor(VF a) { return {_mm256_floor_ps(a.v)}; }
FI_INLINE VF ceil(VF a) { return {_mm256_ceil_ps(a.v)}; }
FI_INLINE VF round(VF a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
FI_INLINE VF trunc(VF a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC)}; }

FI_INLINE VM operator<(VF a, VF b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
FI_INLINE VM operator<=(VF a, VF b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LE_OQ)}; }
FI_INLINE VM operator>(VF a, VF b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_GT_OQ)}; }
FI_INLINE VM operator>=(VF a, VF b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_GE_OQ)}; }
FI_INLINE VM operator==(VF a, VF b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ)}; }
FI_INLINE VM operator!=(VF a, VF b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_NEQ_UQ)}; }
FI_INLINE VM is_nan(VF a) { return {_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q)}; }
FI_INLINE VM operator&(VM a, VM b) { return {_mm256_and_ps(a.v, b.v)}; }
FI_INLINE VM operator|(VM a, VM b) { return {_mm256_or_ps(a.v, b.v)}; }
FI_INLINE VM operator^(VM a, VM b) { return {_mm256_xor_ps(a.v, b.v)}; }
FI_INLINE VM operator~(VM a) { return {_mm256_xor_ps(a.v, _mm256_castsi256_ps(_mm256_set1_epi32(-1)))}; }
FI_INLINE bool any(VM a) { return _mm256_movemask_ps(a.v) != 0; }
FI_INLINE bool all(VM a) { return _mm256_movemask_ps(a.v) == 0xff; }
FI_INLINE VF select(VM m, VF a, VF b) { return {_mm256_blendv_ps(b.v, a.v, m.v)}; }
FI_INLINE VI select(VM m, VI a, VI b) { return {_mm256_blendv_epi8(b.v, a.v, _mm256_castps_si256(m.v))}; }

FI_INLINE VI operator+(VI a, VI b) { return {_mm256_add_epi32(a.v, b.v)}; }
FI_INLINE VI operator-(VI a, VI b) { return {_mm256_sub_epi32(a.v, b.v)}; }
FI_INLINE VI operator*(VI a, VI b) { return {_mm256_mullo_epi32(a.v, b.v)}; }
FI_INLINE VI operator&(VI a, VI b) { return {_mm256_and_si256(a.v, b.v)}; }
FI_INLINE VI operator|(VI a, VI b) { return {_mm256_or_si256(a.v, b.v)}; }
FI_INLINE VI operator^(VI a, VI b) { return {_mm256_xor_si256(a.v, b.v)}; }
FI_INLINE VM operator==(VI a, VI b) { return {_mm256_castsi256_ps(_mm256_cmpeq_epi32(a.v, b.v))}; }
FI_INLINE VM operator>(VI a, VI b) { return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(a.v, b.v))}; }
FI_INLINE VI min(VI a, VI b) { return {_mm256_min_epi32(a.v, b.v)}; }
FI_INLINE VI max(VI a, VI b) { return {_mm256_max_epi32(a.v, b.v)}; }
template <int kBits>
FI_INLINE VI shl(VI a) {
  return {_mm256_slli_epi32(a.v, kBits)};
}
template <int kBits>
FI_INLINE VI sra(VI a) {
  return {_mm256_srai_epi32(a.v, kBits)};
}
template <int kBits>
FI_INLINE VI srl(VI a) {
  return {_mm256_srli_epi32(a.v, kBits)};
}

FI_INLINE VI to_int(VF a) { return {_mm256_cvtps_epi32(a.v)}; }
FI_INLINE VI to_int_trunc(VF a) { return {_mm256_cvttps_epi32(a.v)}; }
FI_INLINE VF to_float(VI a) { return {_mm256_cvtepi32_ps(a.v)}; }
FI_INLINE VI as_int(VF a) { return {_mm256_castps_si256(a.v)}; }
FI_INLINE VF as_float(VI a) { return {_mm256_castsi256_ps(a.v)}; }
// In two factors, so that 2^-149 and 2^128 are within reach.
FI_INLINE VF scale2(VF a, VF n) {
  const VI whole = to_int(n), half = sra<1>(whole), bias = set1i(127);
  return a * as_float(shl<23>(half + bias)) * as_float(shl<23>(whole - half + bias));
}

FI_INLINE VF load_u8(const uint8_t* p) { return {detail::from_ints(_mm256_cvtepu8_epi32(detail::load_8_bytes(p)))}; }
FI_INLINE VF load_u8(const uint8_t* p, int n) {
  return {detail::from_ints(_mm256_cvtepu8_epi32(detail::load_part<1>(p, n)))};
}
FI_INLINE VF load_s8(const int8_t* p) { return {detail::from_ints(_mm256_cvtepi8_epi32(detail::load_8_bytes(p)))}; }
FI_INLINE VF load_s8(const int8_t* p, int n) {
  return {detail::from_ints(_mm256_cvtepi8_epi32(detail::load_part<1>(p, n)))};
}
FI_INLINE VF load_u16(const uint16_t* p) {
  return {detail::from_ints(_mm256_cvtepu16_epi32(detail::load_16_bytes(p)))};
}
FI_INLINE VF load_u16(const uint16_t* p, int n) {
  return {detail::from_ints(_mm256_cvtepu16_epi32(detail::load_part<2>(p, n)))};
}
FI_INLINE VF load_s16(const int16_t* p) { return {detail::from_ints(_mm256_cvtepi16_epi32(detail::load_16_bytes(p)))}; }
FI_INLINE VF load_s16(const int16_t* p, int n) {
  return {detail::from_ints(_mm256_cvtepi16_epi32(detail::load_part<2>(p, n)))};
}
FI_INLINE VF load_s32(const int32_t* p) { return to_float(load(p)); }
FI_INLINE VF load_s32(const int32_t* p, int n) { return to_float(load(p, n)); }
FI_INLINE VF load_f16(const uint16_t* p) { return {_mm256_cvtph_ps(detail::load_16_bytes(p))}; }
FI_INLINE VF load_f16(const uint16_t* p, int n) { return {_mm256_cvtph_ps(detail::load_part<2>(p, n))}; }
FI_INLINE VF load_bf16(const uint16_t* p) { return {detail::from_bf16(detail::load_16_bytes(p))}; }
FI_INLINE VF load_bf16(const uint16_t* p, int n) { return {detail::from_bf16(detail::load_part<2>(p, n))}; }

namespace detail {
// 8 ints within the 16-bit range → 8 words.
FI_INLINE __m128i words(__m256i a) {
  return _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
}
FI_INLINE __m128i bytes_u8(VF a) {
  // max with 0 as the second operand: NaN → 0.
  const __m256 x = _mm256_min_ps(_mm256_max_ps(a.v, _mm256_setzero_ps()), _mm256_set1_ps(255.f));
  const __m128i w = words(_mm256_cvtps_epi32(x));
  return _mm_packus_epi16(w, w);
}
FI_INLINE __m128i bytes_s8(VF a) {
  const __m256 x = _mm256_min_ps(_mm256_max_ps(a.v, _mm256_set1_ps(-128.f)), _mm256_set1_ps(127.f));
  const __m128i w = words(_mm256_cvtps_epi32(x));
  return _mm_packs_epi16(w, w);
}
FI_INLINE __m128i to_f16(VF a) { return _mm256_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
FI_INLINE __m128i to_bf16(VF a) {
  const VI bits = as_int(a), odd = srl<16>(bits) & set1i(1);
  const VI even = srl<16>(bits + odd + set1i(0x7fff)), quiet = srl<16>(bits) | set1i(0x40);
  const __m256i h = select(is_nan(a), quiet, even).v;
  return _mm_packus_epi32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));
}
}  // namespace detail

FI_INLINE void store_u8(uint8_t* p, VF a) { _mm_storel_epi64(reinterpret_cast<__m128i*>(p), detail::bytes_u8(a)); }
FI_INLINE void store_u8(uint8_t* p, VF a, int n) { detail::store_part<1>(p, detail::bytes_u8(a), n); }
FI_INLINE void store_s8(int8_t* p, VF a) { _mm_storel_epi64(reinterpret_cast<__m128i*>(p), detail::bytes_s8(a)); }
FI_INLINE void store_s8(int8_t* p, VF a, int n) { detail::store_part<1>(p, detail::bytes_s8(a), n); }
FI_INLINE void store_f16(uint16_t* p, VF a) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), detail::to_f16(a)); }
FI_INLINE void store_f16(uint16_t* p, VF a, int n) { detail::store_part<2>(p, detail::to_f16(a), n); }
FI_INLINE void store_bf16(uint16_t* p, VF a) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), detail::to_bf16(a)); }
FI_INLINE void store_bf16(uint16_t* p, VF a, int n) { detail::store_part<2>(p, detail::to_bf16(a), n); }

namespace detail {
FI_INLINE VM mask_of(__m128i bytes) {
  const __m256i wide = _mm256_cvtepu8_epi32(bytes);
  return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(wide, _mm256_setzero_si256()))};
}
FI_INLINE __m128i bytes_of(VM m) {
  const __m128i w = words(_mm256_srli_epi32(_mm256_castps_si256(m.v), 31));
  return _mm_packs_epi16(w, w);
}
}  // namespace detail
FI_INLINE VM load_mask(const uint8_t* p) { return detail::mask_of(detail::load_8_bytes(p)); }
FI_INLINE VM load_mask(const uint8_t* p, int n) { return detail::mask_of(detail::load_part<1>(p, n)); }
FI_INLINE void store_mask(uint8_t* p, VM m) { _mm_storel_epi64(reinterpret_cast<__m128i*>(p), detail::bytes_of(m)); }
FI_INLINE void store_mask(uint8_t* p, VM m, int n) { detail::store_part<1>(p, detail::bytes_of(m), n); }

namespace detail {
FI_INLINE __m128 low(__m256 a) { return _mm256_castps256_ps128(a); }
FI_INLINE __m128 high(__m256 a) { return _mm256_extractf128_ps(a, 1); }
FI_INLINE __m128 high(__m128 a) { return _mm_movehl_ps(a, a); }
FI_INLINE __m128 second(__m128 a) { return _mm_shuffle_ps(a, a, 1); }
}  // namespace detail

FI_INLINE float reduce_add(VF a) {
  const __m128 q = _mm_add_ps(detail::low(a.v), detail::high(a.v));
  const __m128 e = _mm_add_ps(q, detail::high(q));
  return _mm_cvtss_f32(_mm_add_ss(e, detail::second(e)));
}
FI_INLINE float reduce_max(VF a) {
  const __m128 q = _mm_max_ps(detail::low(a.v), detail::high(a.v));
  const __m128 e = _mm_max_ps(q, detail::high(q));
  return _mm_cvtss_f32(_mm_max_ss(e, detail::second(e)));
}
FI_INLINE float reduce_min(VF a) {
  const __m128 q = _mm_min_ps(detail::low(a.v), detail::high(a.v));
  const __m128 e = _mm_min_ps(q, detail::high(q));
  return _mm_cvtss_f32(_mm_min_ss(e, detail::second(e)));
}

}  // namespace fi::FI_ISA
