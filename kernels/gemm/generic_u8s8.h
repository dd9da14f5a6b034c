// SPDX-License-Identifier: Apache-2.0
// The integer microkernel over the vector type of the instruction set. Contract: kernels/gemm/gemm_u8s8.h.
// A multiplier gives the instruction: types A4 and B4 (four k's of a row, of a vector of columns) made by split_a and
// split_b from 32-bit lanes of four bytes, and VI dot(VI sum, A4, B4) = sum + the four products per lane.
#pragma once
#include "kernels/gemm/gemm_u8s8.h"
#include "kernels/simd/simd.h"

#ifndef FI_UNROLL
#define FI_UNROLL _Pragma("GCC unroll 16")
#endif

namespace fi::FI_ISA {

// Any machine: bytes apart, products in 32 bits.
struct PlainDot {
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

// Four bytes of a row as one lane value; `left` < 4: the rest 0, without reading beyond.
FI_INLINE int32_t load_4_bytes(const uint8_t* p, int64_t left) {
  int32_t v = 0;
  if (left >= 4) {
    std::memcpy(&v, p, 4);
  } else {
    for (int64_t i = 0; i < left; ++i) v |= static_cast<int32_t>(p[i]) << (8 * i);
  }
  return v;
}

template <class Dot, int MR, int NV>
FI_INLINE void u8s8_group(VI (&acc)[MR][NV], const int32_t (&a)[MR], const int8_t* b, VI flip) {
  typename Dot::B4 bv[NV];
  FI_UNROLL for (int j = 0; j < NV; ++j) bv[j] = Dot::split_b(load(reinterpret_cast<const int32_t*>(b) + j * VI::W));
  FI_UNROLL for (int r = 0; r < MR; ++r) {
    const typename Dot::A4 av = Dot::split_a(set1i(a[r]) ^ flip);
    FI_UNROLL for (int j = 0; j < NV; ++j) acc[r][j] = Dot::dot(acc[r][j], av, bv[j]);
  }
}

template <class Dot, int MR, int NV>
FI_INLINE void u8s8_sums(VI (&acc)[MR][NV], const GemmU8S8Tile& g, int64_t r0, int64_t n0) {
  const int8_t* b = g.b + n0 * 4;
  const int64_t step = g.width * 4, whole = g.k / 4 * 4;
  const VI flip = set1i(g.flip_a ? static_cast<int32_t>(0x80808080u) : 0);
  for (int64_t t = 0; t < g.taps; ++t) {
    const uint8_t* a[MR];
    FI_UNROLL for (int r = 0; r < MR; ++r) a[r] = g.a[t * g.a_tap + r0 + r] + g.a_offset;
    int32_t four[MR];
    for (int64_t k = 0; k < whole; k += 4, b += step) {
      FI_UNROLL for (int r = 0; r < MR; ++r) std::memcpy(&four[r], a[r] + k, 4);
      u8s8_group<Dot, MR, NV>(acc, four, b, flip);
    }
    if (whole < g.k) {
      FI_UNROLL for (int r = 0; r < MR; ++r) four[r] = load_4_bytes(a[r] + whole, g.k - whole);
      u8s8_group<Dot, MR, NV>(acc, four, b, flip);
      b += step;
    }
  }
}

FI_INLINE void u8s8_store(const GemmU8S8Tile& g, VI sum, int64_t r, int64_t n, int lanes) {
  const int64_t at = r * g.ldc + n;
  if (g.output == QuantizedOutput::s32) return store(static_cast<int32_t*>(g.c) + at, sum, lanes);
  VF y = to_float(sum) * (set1(g.row_scale[r * g.row_scale_step]) * load(g.column_scale + n, lanes));
  if (g.output == QuantizedOutput::f32) {
    if (g.float_bias) y = y + load(g.float_bias + n, lanes);
    return store(static_cast<float*>(g.c) + at, y, lanes);
  }
  y = round(y) + set1(g.zero);
  if (g.output == QuantizedOutput::u8)
    store_u8(static_cast<uint8_t*>(g.c) + at, y, lanes);
  else
    store_s8(static_cast<int8_t*>(g.c) + at, y, lanes);
}

template <class Dot, int MR, int NV>
static void u8s8_block(const GemmU8S8Tile& g, int64_t r0, int64_t n0, int last) {
  VI acc[MR][NV];
  FI_UNROLL for (int r = 0; r < MR; ++r) { FI_UNROLL for (int j = 0; j < NV; ++j) acc[r][j] = set1i(0); }
  u8s8_sums<Dot, MR, NV>(acc, g, r0, n0);
  const VI depth = set1i(static_cast<int32_t>(g.taps * g.k));
  FI_UNROLL for (int j = 0; j < NV; ++j) {
    const int64_t n = n0 + j * VI::W;
    const int lanes = j == NV - 1 ? last : VI::W;
    VI per_za = load(g.column_sum + n, lanes), zb = set1i(0), bias = set1i(0);
    if (g.b_zero) {
      zb = load(g.b_zero + n, lanes);
      per_za = per_za - depth * zb;
    }
    if (g.bias) bias = load(g.bias + n, lanes);
    FI_UNROLL for (int r = 0; r < MR; ++r) {
      VI sum = acc[r][j] + bias - set1i(g.a_zero[(r0 + r) * g.a_zero_step]) * per_za;
      if (g.b_zero) sum = sum - zb * set1i(g.row_sum[r0 + r]);
      u8s8_store(g, sum, r0 + r, n, lanes);
    }
  }
}

template <class Dot, int MR, int NV>
FI_INLINE void u8s8_rows(const GemmU8S8Tile& g, int64_t r, int64_t n0, int last) {
  for (; r + MR <= g.rows; r += MR) u8s8_block<Dot, MR, NV>(g, r, n0, last);
  if constexpr (MR > 1) u8s8_rows<Dot, MR - 1, NV>(g, r, n0, last);
}

// All columns: MAX vectors at a time, then the rest.
template <class Dot, int MR, int MAX, int NV = MAX>
FI_INLINE void u8s8_columns(const GemmU8S8Tile& g, int64_t n0) {
  if constexpr (NV == MAX)
    for (; g.cols - n0 > NV * VI::W; n0 += NV * VI::W) u8s8_rows<Dot, MR, NV>(g, 0, n0, VI::W);
  const int64_t left = g.cols - n0;
  if (NV == 1 || left > (NV - 1) * VI::W)
    return u8s8_rows<Dot, MR, NV>(g, 0, n0, static_cast<int>(left) - (NV - 1) * VI::W);
  if constexpr (NV > 1) u8s8_columns<Dot, MR, MAX, NV - 1>(g, n0);
}

}  // namespace fi::FI_ISA
