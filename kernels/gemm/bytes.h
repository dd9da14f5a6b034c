// SPDX-License-Identifier: Apache-2.0
// What the integer kernels need on top of kernels/simd: bytes from lanes, and a fence against spilling.
#pragma once
#include "kernels/simd/simd.h"

namespace fi::FI_ISA {

// The low bytes of the first n lanes, whose values lie in [-128, 255].
FI_INLINE void store_low_bytes(uint8_t* p, VI a, int n) {
#if defined(__AVX512F__)
  const __m128i b = _mm512_cvtepi32_epi8(a.v);
  if (n == VI::W)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), b);
  else
    _mm_mask_storeu_epi8(p, first_n(n).v, b);
#elif defined(__AVX2__)
  const __m128i w = _mm_and_si128(detail::words(a.v), _mm_set1_epi16(255)), b = _mm_packus_epi16(w, w);
  if (n == VI::W)
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), b);
  else
    detail::store_part<1>(p, b, n);
#else
  uint8_t e[VI::W];
  for (int i = 0; i < VI::W; ++i) e[i] = static_cast<uint8_t>(a.v[i]);
  std::memcpy(p, e, static_cast<size_t>(n));
#endif
}

// How bytes leave: a range around the zero point.
struct ByteRange {
  VF lo, hi;  // around 0
  VI zero;
  FI_INLINE_MEMBER ByteRange(int32_t z, int32_t low, int32_t high)
      : lo(set1(static_cast<float>(low - z))), hi(set1(static_cast<float>(high - z))), zero(set1i(z)) {}
  // Integers around 0: clamped before rounding, which is the same as after it, and keeps the conversion in range.
  FI_INLINE_MEMBER VI around_zero(VF v) const { return to_int(max(min(hi, v), lo)); }
};

// The compiler takes the value to be changed here, and so keeps it in a register up to here.
FI_INLINE void keep_in_register(VI& a) {
#if defined(__AVX512F__)
  asm volatile("" : "+v"(a.v));
#elif defined(__x86_64__)
  asm volatile("" : "+x"(a.v));
#else
  asm volatile("" : "+w"(a.v));
#endif
}

}  // namespace fi::FI_ISA
