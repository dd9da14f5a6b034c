// SPDX-License-Identifier: Apache-2.0
// The instruction behind integer products. A multiplier has types A4 and B4 (four unsigned, four signed bytes per
// 32-bit lane) made by split_a and split_b, and VI dot(VI sum, A4, B4) = sum + the four products per lane, exactly.
#pragma once
#include "kernels/simd/simd.h"

#ifndef FI_UNROLL
#define FI_UNROLL _Pragma("GCC unroll 32")
#endif

namespace fi::FI_ISA {

#if defined(__AVX512VNNI__)
struct BestDot {
  static constexpr bool wide = true;  // one instruction, 32 registers
  using A4 = VI;
  using B4 = VI;
  FI_INLINE VI split_a(VI a) { return a; }
  FI_INLINE VI split_b(VI b) { return b; }
  FI_INLINE VI dot(VI sum, VI a, VI b) { return {_mm512_dpbusd_epi32(sum.v, a.v, b.v)}; }
};
#elif defined(__AVX512F__)
// vpmaddwd on the even and the odd bytes: exact, where vpmaddubsw would saturate sums of two products.
struct BestDot {
  static constexpr bool wide = false;
  struct A4 {
    __m512i even, odd;
  };
  using B4 = A4;
  FI_INLINE A4 split_a(VI a) { return {_mm512_and_si512(a.v, _mm512_set1_epi16(255)), _mm512_srli_epi16(a.v, 8)}; }
  FI_INLINE B4 split_b(VI b) { return {_mm512_srai_epi16(_mm512_slli_epi16(b.v, 8), 8), _mm512_srai_epi16(b.v, 8)}; }
  FI_INLINE VI dot(VI sum, const A4& a, const B4& b) {
    const __m512i pairs = _mm512_add_epi32(_mm512_madd_epi16(a.even, b.even), _mm512_madd_epi16(a.odd, b.odd));
    return {_mm512_add_epi32(sum.v, pairs)};
  }
};
#elif defined(__AVX2__)
struct BestDot {
  static constexpr bool wide = false;
  struct A4 {
    __m256i even, odd;
  };
  using B4 = A4;
  FI_INLINE A4 split_a(VI a) { return {_mm256_and_si256(a.v, _mm256_set1_epi16(255)), _mm256_srli_epi16(a.v, 8)}; }
  FI_INLINE B4 split_b(VI b) { return {_mm256_srai_epi16(_mm256_slli_epi16(b.v, 8), 8), _mm256_srai_epi16(b.v, 8)}; }
  FI_INLINE VI dot(VI sum, const A4& a, const B4& b) {
    const __m256i pairs = _mm256_add_epi32(_mm256_madd_epi16(a.even, b.even), _mm256_madd_epi16(a.odd, b.odd));
    return {_mm256_add_epi32(sum.v, pairs)};
  }
};
#else
// Any machine: bytes apart, products in 32 bits.
struct BestDot {
  static constexpr bool wide = false;
  struct A4 {
    VI v[4];
  };
  using B4 = A4;
  FI_INLINE A4 split_a(VI a) {
    const VI byte = set1i(255);
    return {{a & byte, srl<8>(a) & byte, srl<16>(a) & byte, srl<24>(a)}};
  }
  FI_INLINE B4 split_b(VI b) { return {{sra<24>(shl<24>(b)), sra<24>(shl<16>(b)), sra<24>(shl<8>(b)), sra<24>(b)}}; }
  FI_INLINE VI dot(VI sum, const A4& a, const B4& b) {
    FI_UNROLL for (int i = 0; i < 4; ++i) sum = sum + a.v[i] * b.v[i];
    return sum;
  }
};
#endif

}  // namespace fi::FI_ISA
