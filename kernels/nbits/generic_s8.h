// SPDX-License-Identifier: Apache-2.0
// Activations as bytes, quantized by blocks of k. Contract: kernels/nbits/nbits.h.
#pragma once
#include "kernels/gemm/dots.h"
#include "kernels/nbits/nbits.h"

namespace fi::FI_ISA {

constexpr int64_t kNBitsS8Ahead = 2048;

// The products of unsigned weights and signed activations of at most 32 k's, in whatever form is quickest; total() adds
// them to sums in 32 bits. All are exact.
template <int kBits>
struct NBitsDot {
#if defined(__AVX2__) && !defined(__AVX512VNNI__)
  // Four bits: pairs in 16 bits, eight of them at most: 8 * 2 * 15 * 127 = 30480.
  static constexpr bool kPairs = kBits == 4;
#else
  static constexpr bool kPairs = false;
#endif
  FI_INLINE VI begin(VI sum) { return kPairs ? set1i(0) : sum; }
  FI_INLINE VI add(VI s, VI weights, VI activations) {
    if constexpr (!kPairs) return BestDot::dot(s, BestDot::split_a(weights), BestDot::split_b(activations));
#if defined(__AVX512F__)
    return {_mm512_add_epi16(s.v, _mm512_maddubs_epi16(weights.v, activations.v))};
#elif defined(__AVX2__)
    return {_mm256_add_epi16(s.v, _mm256_maddubs_epi16(weights.v, activations.v))};
#endif
  }
  FI_INLINE VI total(VI sum, VI s) {
    if constexpr (!kPairs) return s;
#if defined(__AVX512F__)
    return {_mm512_add_epi32(sum.v, _mm512_madd_epi16(s.v, _mm512_set1_epi16(1)))};
#elif defined(__AVX2__)
    return {_mm256_add_epi32(sum.v, _mm256_madd_epi16(s.v, _mm256_set1_epi16(1)))};
#endif
  }
};

FI_INLINE VI nbits_four(const int8_t* p) {
  int32_t v;
  std::memcpy(&v, p, 4);
  return set1i(v);
}

template <int kBits, bool kZeros, int MR, int NV>
static __attribute__((noinline)) void nbits_s8_block(const NBitsTile& t, int64_t r0, int64_t n0) {
  using Dot = NBitsDot<kBits>;
  constexpr int kGroup = 32 / kBits, kTogether = 32;
  QuantizedRow a[MR];
  VF acc[MR][NV];
  FI_UNROLL for (int r = 0; r < MR; ++r) {
    a[r] = quantized_row(t.quantized, t.bytes, t.first + r0 + r);
    FI_UNROLL for (int j = 0; j < NV; ++j) acc[r][j] = zero();
  }
  const VI low = set1i(0x0f0f0f0f);
  const int64_t row = t.width * 4;
  const uint8_t* q = t.q + n0 * 4;
  for (int64_t k = 0, b = 0; k < t.k; ++b) {
    const int64_t block_end = k + t.block < t.k ? k + t.block : t.k;
    VI sum[MR][NV];
    FI_UNROLL for (int r = 0; r < MR; ++r) { FI_UNROLL for (int j = 0; j < NV; ++j) sum[r][j] = set1i(a[r].start[b]); }
    while (k < block_end) {
      const int64_t end = k + kTogether < block_end ? k + kTogether : block_end;
      VI s[MR][NV];
      FI_UNROLL for (int r = 0; r < MR; ++r) { FI_UNROLL for (int j = 0; j < NV; ++j) s[r][j] = Dot::begin(sum[r][j]); }
      for (; k < end; k += kGroup, q += row) {
        VI w[NV];
        FI_UNROLL for (int j = 0; j < NV; ++j) {
          w[j] = load(reinterpret_cast<const int32_t*>(q) + j * VI::W);
          if (MR == 1 && j * VI::W % 16 == 0) __builtin_prefetch(q + j * VI::W * 4 + kNBitsS8Ahead);
        }
        FI_UNROLL for (int h = 0; h < 8 / kBits; ++h) {
          VI half[NV];
          FI_UNROLL for (int j = 0; j < NV; ++j) half[j] = kBits == 8 ? w[j] : (h ? srl<4>(w[j]) : w[j]) & low;
          FI_UNROLL for (int r = 0; r < MR; ++r) {
            const VI x = nbits_four(a[r].q + k + 4 * h);
            FI_UNROLL for (int j = 0; j < NV; ++j) s[r][j] = Dot::add(s[r][j], half[j], x);
          }
        }
      }
      k = end;
      FI_UNROLL for (int r = 0; r < MR; ++r) {
        FI_UNROLL for (int j = 0; j < NV; ++j) sum[r][j] = Dot::total(sum[r][j], s[r][j]);
      }
    }
    FI_UNROLL for (int j = 0; j < NV; ++j) {
      const VF scale = load(t.scale + b * t.width + n0 + j * VF::W);
      const VF zeros = kZeros ? load(t.zero + b * t.width + n0 + j * VF::W) : zero();
      FI_UNROLL for (int r = 0; r < MR; ++r) {
        VF v = to_float(sum[r][j]);
        if constexpr (kZeros) v = fnma(zeros, set1(a[r].sum[b]), v);
        acc[r][j] = fma(v, scale * set1(a[r].scale[b]), acc[r][j]);
      }
    }
  }
  FI_UNROLL for (int j = 0; j < NV; ++j) {
    const int64_t n = n0 + j * VF::W;
    if (n >= t.cols) break;
    const int lanes = static_cast<int>(t.cols - n < VF::W ? t.cols - n : VF::W);
    FI_UNROLL for (int r = 0; r < MR; ++r) {
      store(t.c + (r0 + r) * t.ldc + n, t.bias ? acc[r][j] + load(t.bias + n, lanes) : acc[r][j], lanes);
    }
  }
}

template <int kBits, bool kZeros, int MR, int NV>
FI_INLINE void nbits_s8_columns(const NBitsTile& t, int64_t r0, int64_t n0 = 0) {
  for (; n0 + NV * VF::W <= t.width; n0 += NV * VF::W) nbits_s8_block<kBits, kZeros, MR, NV>(t, r0, n0);
  if constexpr (NV > 1) nbits_s8_columns<kBits, kZeros, MR, NV / 2>(t, r0, n0);
}

template <int kBits, bool kZeros>
FI_INLINE void nbits_s8_rows_of(const NBitsTile& t) {
  // 32 registers: sums, sums as floats, two vectors of weights.
  constexpr int kMany = BestDot::wide ? 6 : 2;
  int64_t r = 0;
  for (; r + kMany <= t.rows; r += kMany) nbits_s8_columns<kBits, kZeros, kMany, 2>(t, r);
  if constexpr (BestDot::wide) {
    for (; r + 4 <= t.rows; r += 4) nbits_s8_columns<kBits, kZeros, 4, 2>(t, r);
    for (; r + 2 <= t.rows; r += 2) nbits_s8_columns<kBits, kZeros, 2, 4>(t, r);
  }
  if (r < t.rows) nbits_s8_columns<kBits, kZeros, 1, 4>(t, r);
}

void nbits_s8_rows(const NBitsTile& t) {
  if (t.bits == 4) return t.zero ? nbits_s8_rows_of<4, true>(t) : nbits_s8_rows_of<4, false>(t);
  t.zero ? nbits_s8_rows_of<8, true>(t) : nbits_s8_rows_of<8, false>(t);
}

// Blocks whose largest number is below 1e-30 become 0: the reciprocal of their scale would overflow. What is not finite
// makes its block's scale so, and with it the row.
void nbits_quantize(const float* a, int64_t k, int64_t block, int32_t half, const QuantizedRow& out) {
  for (int64_t k0 = 0, b = 0; k0 < k; k0 += block, ++b) {
    const int64_t end = k0 + block < k ? k0 + block : k;
    VF largest = zero();
    const auto lanes = [&](int64_t i) { return static_cast<int>(end - i < VF::W ? end - i : VF::W); };
    for (int64_t i = k0; i < end; i += VF::W) largest = max_nan(abs(load(a + i, lanes(i))), largest);
    const float most = any(is_nan(largest)) ? __builtin_nanf("") : reduce_max(largest);
    const float inverse = most < 1e-30f ? 0.f : 127.f / most;
    VF sum = zero();
    for (int64_t i = k0; i < end; i += VF::W) {
      const VF v = min(max(round(load(a + i, lanes(i)) * set1(inverse)), set1(-127.f)), set1(127.f));
      store_s8(out.q + i, v, lanes(i));
      sum += v;
    }
    const float total = reduce_add(sum);
    out.scale[b] = most < 1e-30f ? 0.f : most / 127.f;
    out.sum[b] = total;
    out.start[b] = -half * static_cast<int32_t>(total);
  }
  for (int64_t i = k; i % 16 != 0; ++i) out.q[i] = 0;
}

extern const NBitsS8 nbits_s8;
const NBitsS8 nbits_s8{nbits_s8_rows, nbits_quantize};

}  // namespace fi::FI_ISA
