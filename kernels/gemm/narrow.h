// SPDX-License-Identifier: Apache-2.0
// Integers around 0 as bytes around a zero point, four vectors at a time and in 16 bits: 2 instructions per vector,
// where a clamp, a sum and a narrowing store of each vector take 5.
#pragma once
#include "kernels/gemm/bytes.h"
#include "kernels/gemm/gemm_u8s8.h"

namespace fi::FI_ISA {

// 4 * VI::W bytes.
struct VB {
#if defined(__AVX512F__)
  __m512i v;
#elif defined(__AVX2__)
  __m256i v;
#else
  uint8_t v[4 * VI::W];
#endif
};

// clamp(x + zero, lo, hi) of u8 or, with the top bit flipped, of s8.
struct ByteNarrow {
#if defined(__AVX512F__)
  __m512i zero, lo, hi, flip;
#elif defined(__AVX2__)
  __m256i zero, lo, hi, flip;
#else
  int zero, lo, hi, flip;
#endif

  FI_INLINE_MEMBER ByteNarrow(const Requantize& q, bool is_signed) {
    const int up = is_signed ? 128 : 0;
#if defined(__AVX512F__)
    zero = _mm512_set1_epi16(static_cast<short>(q.zero + up));
    lo = _mm512_set1_epi8(static_cast<char>(q.lo + up)), hi = _mm512_set1_epi8(static_cast<char>(q.hi + up));
    flip = _mm512_set1_epi8(static_cast<char>(up));
#elif defined(__AVX2__)
    zero = _mm256_set1_epi16(static_cast<short>(q.zero + up));
    lo = _mm256_set1_epi8(static_cast<char>(q.lo + up)), hi = _mm256_set1_epi8(static_cast<char>(q.hi + up));
    flip = _mm256_set1_epi8(static_cast<char>(up));
#else
    zero = q.zero + up, lo = q.lo + up, hi = q.hi + up, flip = up;
#endif
  }

  // In the order that unpacking bytes within 128-bit lanes gives: lane l of vector q is byte l / 4 * 16 + q * 4 + l
  // % 4.
  FI_INLINE_MEMBER VB packed(VI q0, VI q1, VI q2, VI q3) const {
#if defined(__AVX512F__)
    const __m512i a = _mm512_adds_epi16(_mm512_packs_epi32(q0.v, q1.v), zero);
    const __m512i b = _mm512_adds_epi16(_mm512_packs_epi32(q2.v, q3.v), zero);
    const __m512i bytes = _mm512_min_epu8(_mm512_max_epu8(_mm512_packus_epi16(a, b), lo), hi);
    return {_mm512_xor_si512(bytes, flip)};
#elif defined(__AVX2__)
    const __m256i a = _mm256_adds_epi16(_mm256_packs_epi32(q0.v, q1.v), zero);
    const __m256i b = _mm256_adds_epi16(_mm256_packs_epi32(q2.v, q3.v), zero);
    const __m256i bytes = _mm256_min_epu8(_mm256_max_epu8(_mm256_packus_epi16(a, b), lo), hi);
    return {_mm256_xor_si256(bytes, flip)};
#else
    VB out;
    const VI q[4] = {q0, q1, q2, q3};
    for (int j = 0; j < 4; ++j)
      for (int l = 0; l < VI::W; ++l) {
        const int x = q[j].v[l] > 32767 ? 32767 : q[j].v[l] < -32768 ? -32768 : q[j].v[l];
        const int y = x + zero < lo ? lo : x + zero > hi ? hi : x + zero;
        out.v[l / 4 * 16 + j * 4 + l % 4] = static_cast<uint8_t>(y ^ flip);
      }
    return out;
#endif
  }

  // Vector after vector.
  FI_INLINE_MEMBER VB in_order(VI q0, VI q1, VI q2, VI q3) const {
    const VB b = packed(q0, q1, q2, q3);
#if defined(__AVX512F__)
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return {_mm512_permutexvar_epi32(order, b.v)};
#elif defined(__AVX2__)
    return {_mm256_permutevar8x32_epi32(b.v, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7))};
#else
    return b;
#endif
  }
};

// The first n bytes.
FI_INLINE void store_bytes(uint8_t* p, const VB& b, int n) {
#if defined(__AVX512F__)
  if (n == 4 * VI::W)
    _mm512_storeu_si512(p, b.v);
  else
    _mm512_mask_storeu_epi8(p, (uint64_t{1} << n) - 1, b.v);
#else
  if (n == 4 * VI::W)
    std::memcpy(p, &b, 4 * VI::W);
  else
    std::memcpy(p, &b, static_cast<size_t>(n));
#endif
}

// The first n bytes of those that start at vector kFirst of `in_order`'s.
template <int kFirst>
FI_INLINE void store_bytes_from(uint8_t* p, const VB& b, int n) {
#if defined(__AVX512F__)
  if constexpr (kFirst == 0) return store_bytes(p, b, n);
  if constexpr (kFirst == 2) {
    const __m256i half = _mm512_extracti64x4_epi64(b.v, 1);
    if (n == 2 * VI::W)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), half);
    else
      _mm256_mask_storeu_epi8(p, static_cast<__mmask32>((uint64_t{1} << n) - 1), half);
  } else {
    const __m128i quarter = _mm512_extracti32x4_epi32(b.v, kFirst);
    if (n == VI::W)
      _mm_storeu_si128(reinterpret_cast<__m128i*>(p), quarter);
    else
      _mm_mask_storeu_epi8(p, static_cast<__mmask16>((1u << n) - 1), quarter);
  }
#else
  alignas(32) uint8_t e[4 * VI::W];
  std::memcpy(e, &b, sizeof e);
  if (n == VI::W)
    std::memcpy(p, e + kFirst * VI::W, VI::W);
  else
    std::memcpy(p, e + kFirst * VI::W, static_cast<size_t>(n));
#endif
}

// Whether v * scale is in the range of to_int whatever the 32-bit v, with room for a residual.
FI_INLINE bool narrowable(VF scale) { return all(abs(scale) <= set1(0.5f)); }
FI_INLINE bool narrowable(const Requantize& q) {
  const float most = 1 << 20, c = __builtin_fabsf(q.c_factor), r = __builtin_fabsf(q.r_factor);
  return c < most && r < most;
}

}  // namespace fi::FI_ISA
