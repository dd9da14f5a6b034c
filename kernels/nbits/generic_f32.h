// SPDX-License-Identifier: Apache-2.0
// Weights as floats, in registers or in a chunk of a panel. Contract: kernels/nbits/nbits.h.
#pragma once
#include "kernels/nbits/nbits.h"
#include "kernels/simd/simd.h"

#ifndef FI_UNROLL
#define FI_UNROLL _Pragma("GCC unroll 32")
#endif

namespace fi::FI_ISA {

constexpr int64_t kNBitsAhead = 2048;  // bytes of q fetched ahead: the hardware's streams end at pages

// Field I of a group, in the order of k.
template <int kBits, int I>
FI_INLINE VI nbits_field(VI group) {
  constexpr int kShift = kBits == 8 ? 8 * I : I < 4 ? 8 * I : 8 * (I - 4) + 4;
  if constexpr (kShift == 0)
    return group;
  else
    return srl<kShift>(group);
}

// q - zero, exactly where zero is an integer.
template <int kBits, bool kZeros>
struct NBitsDifference {
#if defined(__AVX512F__)
  // A permutation reads the low four bits of its index alone.
  __m512 table;
  FI_INLINE_MEMBER NBitsDifference() {
    const __m512 q = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    table = kZeros ? q : _mm512_sub_ps(q, _mm512_set1_ps(8));
  }
#endif
  FI_INLINE_MEMBER VF operator()(VI field, VF zero) const {
#if defined(__AVX512F__)
    if constexpr (kBits == 4) {
      const VF q = {_mm512_permutexvar_ps(field.v, table)};
      return kZeros ? q - zero : q;
    }
#endif
    return to_float(field & set1i(kBits == 4 ? 15 : 255)) - zero;
  }
};

template <int kBits, bool kZeros, int MR, int NV>
struct NBitsFewRows {
  const NBitsTile& t;
  int64_t n0;
  const float* a[MR];
  VF acc[MR][NV], scale[NV], zero[NV];
  NBitsDifference<kBits, kZeros> difference;

  FI_INLINE_MEMBER NBitsFewRows(const NBitsTile& tile, int64_t r0, int64_t n) : t(tile), n0(n) {
    FI_UNROLL for (int r = 0; r < MR; ++r) {
      a[r] = t.a + (r0 + r) * t.k;
      FI_UNROLL for (int j = 0; j < NV; ++j) acc[r][j] = fi::FI_ISA::zero();
    }
  }
  template <int I>
  FI_INLINE_MEMBER void step(const VI (&group)[NV], int64_t k) {
    VF x[MR];
    FI_UNROLL for (int r = 0; r < MR; ++r) x[r] = set1(a[r][k + I]);
    FI_UNROLL for (int j = 0; j < NV; ++j) {
      const VF w = difference(nbits_field<kBits, I>(group[j]), zero[j]) * scale[j];
      FI_UNROLL for (int r = 0; r < MR; ++r) acc[r][j] = fma(x[r], w, acc[r][j]);
    }
  }
  template <int I>
  FI_INLINE_MEMBER void steps(const VI (&group)[NV], int64_t k, int64_t left) {
    if constexpr (I < 32 / kBits) {
      if (I >= left) return;
      step<I>(group, k);
      steps<I + 1>(group, k, left);
    }
  }
  FI_INLINE_MEMBER void run() {
    constexpr int kGroup = 32 / kBits;
    const int64_t row = t.width * 4;
    const uint8_t* q = t.q + n0 * 4;
    for (int64_t k = 0, b = 0; k < t.k; ++b) {
      const int64_t end = k + t.block < t.k ? k + t.block : t.k;
      FI_UNROLL for (int j = 0; j < NV; ++j) {
        scale[j] = load(t.scale + b * t.width + n0 + j * VF::W);
        zero[j] = kZeros ? load(t.zero + b * t.width + n0 + j * VF::W) : set1(kBits == 4 ? 8.f : 128.f);
      }
      for (; k < end; k += kGroup, q += row) {
        VI group[NV];
        FI_UNROLL for (int j = 0; j < NV; ++j) {
          group[j] = load(reinterpret_cast<const int32_t*>(q) + j * VF::W);
          if (j * VF::W % 16 == 0) __builtin_prefetch(q + j * VF::W * 4 + kNBitsAhead);
        }
        if (end - k >= kGroup)
          steps<0>(group, k, kGroup);
        else
          steps<0>(group, k, end - k);
      }
    }
  }
  FI_INLINE_MEMBER void finish(int64_t r0) {
    FI_UNROLL for (int j = 0; j < NV; ++j) {
      const int64_t n = n0 + j * VF::W;
      if (n >= t.cols) break;
      const int lanes = static_cast<int>(t.cols - n < VF::W ? t.cols - n : VF::W);
      const VF bias = t.bias ? load(t.bias + n, lanes) : fi::FI_ISA::zero();
      FI_UNROLL for (int r = 0; r < MR; ++r) {
        store(t.c + (r0 + r) * t.ldc + n, t.bias ? acc[r][j] + bias : acc[r][j], lanes);
      }
    }
  }
};

template <int kBits, bool kZeros, int MR, int NV>
static __attribute__((noinline)) void nbits_few_block(const NBitsTile& t, int64_t r0, int64_t n0) {
  NBitsFewRows<kBits, kZeros, MR, NV> rows(t, r0, n0);
  rows.run();
  rows.finish(r0);
}

// All columns of MR rows: NV vectors at a time, then the rest.
template <int kBits, bool kZeros, int MR, int NV>
FI_INLINE void nbits_few_columns(const NBitsTile& t, int64_t r0, int64_t n0 = 0) {
  for (; n0 + NV * VF::W <= t.width; n0 += NV * VF::W) nbits_few_block<kBits, kZeros, MR, NV>(t, r0, n0);
  if constexpr (NV > 1) nbits_few_columns<kBits, kZeros, MR, NV / 2>(t, r0, n0);
}

template <int kBits, bool kZeros>
FI_INLINE void nbits_few_rows_of(const NBitsTile& t) {
  constexpr int kMany = VF::W == 16 ? 4 : 2;
  int64_t r = 0;
  for (; r + 4 <= t.rows; r += 4) nbits_few_columns<kBits, kZeros, 4, kMany>(t, r);
  for (; r + 2 <= t.rows; r += 2) nbits_few_columns<kBits, kZeros, 2, kMany>(t, r);
  if (r < t.rows) nbits_few_columns<kBits, kZeros, 1, 4>(t, r);
}

void nbits_few_rows(const NBitsTile& t) {
  if (t.bits == 4) return t.zero ? nbits_few_rows_of<4, true>(t) : nbits_few_rows_of<4, false>(t);
  t.zero ? nbits_few_rows_of<8, true>(t) : nbits_few_rows_of<8, false>(t);
}

template <int kBits, bool kZeros, int I = 0>
FI_INLINE void nbits_store_fields(const NBitsDifference<kBits, kZeros>& difference, VI group, VF scale, VF zero,
                                  int64_t left, int64_t width, float* out) {
  if constexpr (I < 32 / kBits) {
    if (I >= left) return;
    store(out, difference(nbits_field<kBits, I>(group), zero) * scale);
    nbits_store_fields<kBits, kZeros, I + 1>(difference, group, scale, zero, left, width, out + width);
  }
}

template <int kBits, bool kZeros>
FI_INLINE void nbits_dequantize_of(const NBitsChunk& c, float* out) {
  constexpr int kGroup = 32 / kBits;
  const NBitsDifference<kBits, kZeros> difference;
  for (int64_t k = c.k0; k < c.k1;) {
    const int64_t b = k / c.block, end = (b + 1) * c.block < c.k1 ? (b + 1) * c.block : c.k1;
    for (int64_t n = 0; n < c.width; n += VF::W) {
      const VF scale = load(c.scale + b * c.width + n);
      const VF zero = kZeros ? load(c.zero + b * c.width + n) : set1(kBits == 4 ? 8.f : 128.f);
      for (int64_t i = k; i < end; i += kGroup) {
        const VI group = load(reinterpret_cast<const int32_t*>(c.q) + i / kGroup * c.width + n);
        float* to = out + (i - c.k0) * c.width + n;
        if (end - i >= kGroup)
          nbits_store_fields<kBits, kZeros>(difference, group, scale, zero, kGroup, c.width, to);
        else
          nbits_store_fields<kBits, kZeros>(difference, group, scale, zero, end - i, c.width, to);
      }
    }
    k = end;
  }
}

void nbits_dequantize(const NBitsChunk& c, float* out) {
  if (c.bits == 4) return c.zero ? nbits_dequantize_of<4, true>(c, out) : nbits_dequantize_of<4, false>(c, out);
  c.zero ? nbits_dequantize_of<8, true>(c, out) : nbits_dequantize_of<8, false>(c, out);
}

extern const NBitsF32 nbits_f32;
const NBitsF32 nbits_f32{nbits_dequantize, nbits_few_rows};

}  // namespace fi::FI_ISA
