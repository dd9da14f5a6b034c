// SPDX-License-Identifier: Apache-2.0
// Table lookup in registers, contract: kernels/lookup/lookup.h.
#pragma once
#include "kernels/lookup/lookup.h"
#include "kernels/simd/simd.h"

namespace fi::FI_ISA {

#if defined(__AVX512F__)
// The table as 128 pairs in four registers: two permutations of words pick the pair, a shift its half.
struct LookupTable {
  static constexpr int W = 32;
  __m512i pairs[4];
  FI_INLINE_MEMBER explicit LookupTable(const uint8_t* table) {
    for (int i = 0; i < 4; ++i) pairs[i] = _mm512_loadu_si512(table + 64 * i);
  }
  FI_INLINE_MEMBER void look(const uint8_t* x, uint8_t* y) const {
    const __m512i i = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)));
    const __m512i pair = _mm512_srli_epi16(i, 1);
    const __m512i low = _mm512_permutex2var_epi16(pairs[0], pair, pairs[1]);
    const __m512i high = _mm512_permutex2var_epi16(pairs[2], pair, pairs[3]);
    const __m512i both = _mm512_mask_blend_epi16(_mm512_test_epi16_mask(i, _mm512_set1_epi16(128)), low, high);
    const __m512i odd = _mm512_slli_epi16(_mm512_and_si512(i, _mm512_set1_epi16(1)), 3);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(y), _mm512_cvtepi16_epi8(_mm512_srlv_epi16(both, odd)));
  }
};
#elif defined(__AVX2__)
// Sixteen tables of sixteen: the shuffle gives 0 where an index has its top bit set, which adding 0x70 with saturation
// sets for all but those below 16.
struct LookupTable {
  static constexpr int W = 32;
  __m256i part[16];
  FI_INLINE_MEMBER explicit LookupTable(const uint8_t* table) {
    for (int i = 0; i < 16; ++i)
      part[i] = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table + 16 * i)));
  }
  FI_INLINE_MEMBER void look(const uint8_t* x, uint8_t* y) const {
    __m256i i = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)), out = _mm256_setzero_si256();
    for (int t = 0; t < 16; ++t) {
      out = _mm256_or_si256(out, _mm256_shuffle_epi8(part[t], _mm256_adds_epu8(i, _mm256_set1_epi8(0x70))));
      i = _mm256_sub_epi8(i, _mm256_set1_epi8(16));
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(y), out);
  }
};
#else
struct LookupTable {
  static constexpr int W = 1;
  const uint8_t* table;
  FI_INLINE_MEMBER explicit LookupTable(const uint8_t* t) : table(t) {}
  FI_INLINE_MEMBER void look(const uint8_t* x, uint8_t* y) const { *y = table[*x]; }
};
#endif

FI_INLINE void lookup_row(const LookupTable& t, const uint8_t* table, const uint8_t* x, uint8_t* y, int64_t n) {
  int64_t c = 0;
  for (; c + LookupTable::W <= n; c += LookupTable::W) t.look(x + c, y + c);
  for (; c < n; ++c) y[c] = table[x[c]];
}

Status lookup_bytes(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const LookupStep*>(params);
  const auto *x = static_cast<const uint8_t*>(args[0]), *table = static_cast<const uint8_t*>(args[1]);
  auto* y = static_cast<uint8_t*>(args[2]);
  const LookupTable t(table);
  if (p.x_row == p.columns && p.y_row == p.columns) {
    const auto [begin, end] = part_of(p.rows * p.columns, part, parts, 64);
    lookup_row(t, table, x + begin, y + begin, end - begin);
    return Status::ok;
  }
  const auto [begin, end] = part_of(p.rows, part, parts);
  for (int64_t r = begin; r < end; ++r) lookup_row(t, table, x + r * p.x_row, y + r * p.y_row, p.columns);
  return Status::ok;
}

}  // namespace fi::FI_ISA
