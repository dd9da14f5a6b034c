// SPDX-License-Identifier: Apache-2.0
// Wide<32> and Wide<64>, see wide.h.
#pragma once
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // gcc 12 on its own _mm512_undefined
#include <immintrin.h>
#pragma GCC diagnostic pop

#include "kernels/move/wide.h"

namespace fi::FI_ISA {
namespace {

inline __m128i load_lane(const char* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }

template <>
struct Wide<32> {
  __m256i v;
  static Wide load(const char* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }
  static Wide load_lanes(const char* p, ptrdiff_t step) {
    return {_mm256_inserti128_si256(_mm256_castsi128_si256(load_lane(p)), load_lane(p + step), 1)};
  }
  void store(char* p) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
  template <int U>
  static Wide unpack_low(Wide a, Wide b) {
    if constexpr (U == 1)
      return {_mm256_unpacklo_epi8(a.v, b.v)};
    else if constexpr (U == 2)
      return {_mm256_unpacklo_epi16(a.v, b.v)};
    else if constexpr (U == 4)
      return {_mm256_unpacklo_epi32(a.v, b.v)};
    else
      return {_mm256_unpacklo_epi64(a.v, b.v)};
  }
  template <int U>
  static Wide unpack_high(Wide a, Wide b) {
    if constexpr (U == 1)
      return {_mm256_unpackhi_epi8(a.v, b.v)};
    else if constexpr (U == 2)
      return {_mm256_unpackhi_epi16(a.v, b.v)};
    else if constexpr (U == 4)
      return {_mm256_unpackhi_epi32(a.v, b.v)};
    else
      return {_mm256_unpackhi_epi64(a.v, b.v)};
  }
};

#ifdef __AVX512BW__
template <>
struct Wide<64> {
  __m512i v;
  static Wide load(const char* p) { return {_mm512_loadu_si512(p)}; }
  static Wide load_lanes(const char* p, ptrdiff_t step) {
    __m512i v = _mm512_castsi128_si512(load_lane(p));
    v = _mm512_inserti32x4(v, load_lane(p + step), 1);
    v = _mm512_inserti32x4(v, load_lane(p + 2 * step), 2);
    return {_mm512_inserti32x4(v, load_lane(p + 3 * step), 3)};
  }
  void store(char* p) const { _mm512_storeu_si512(p, v); }
  template <int U>
  static Wide unpack_low(Wide a, Wide b) {
    if constexpr (U == 1)
      return {_mm512_unpacklo_epi8(a.v, b.v)};
    else if constexpr (U == 2)
      return {_mm512_unpacklo_epi16(a.v, b.v)};
    else if constexpr (U == 4)
      return {_mm512_unpacklo_epi32(a.v, b.v)};
    else
      return {_mm512_unpacklo_epi64(a.v, b.v)};
  }
  template <int U>
  static Wide unpack_high(Wide a, Wide b) {
    if constexpr (U == 1)
      return {_mm512_unpackhi_epi8(a.v, b.v)};
    else if constexpr (U == 2)
      return {_mm512_unpackhi_epi16(a.v, b.v)};
    else if constexpr (U == 4)
      return {_mm512_unpackhi_epi32(a.v, b.v)};
    else
      return {_mm512_unpackhi_epi64(a.v, b.v)};
  }
};
#endif

}  // namespace
}  // namespace fi::FI_ISA
