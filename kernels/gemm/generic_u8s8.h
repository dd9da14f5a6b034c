// SPDX-License-Identifier: Apache-2.0
// The integer microkernel over the vector type of the instruction set. Contract: kernels/gemm/gemm_u8s8.h.
#pragma once
#include "kernels/gemm/bytes.h"
#include "kernels/gemm/dots.h"
#include "kernels/gemm/gemm_u8s8.h"
#include "kernels/gemm/narrow.h"

namespace fi::FI_ISA {

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
  const int64_t step = g.width * 4, whole = (g.over_read ? g.k + 3 : g.k) / 4 * 4;
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

// Where sums go. `general` decides per vector and corrects for zero points by row; the others are the usual cases.
enum class U8S8Kind { general, bytes, residual, floats };

// Everything that stores need, read once: a store of bytes could change any of it, as far as the compiler knows.
struct U8S8Output {
  ByteRange last, inner;
  VF c_factor, r_zero, r_factor;
  bool has_inner, signed_residual;
  const uint8_t* residual;
  const float* float_bias;
  char* c;
  int64_t ldc;
  FI_INLINE_MEMBER explicit U8S8Output(const GemmU8S8Tile& g)
      : last(g.q.zero, g.q.lo, g.q.hi),
        inner(g.q.c_zero, g.q.c_lo, g.q.c_hi),
        c_factor(set1(g.q.c_factor)),
        r_zero(set1(static_cast<float>(g.q.r_zero))),
        r_factor(set1(g.q.r_factor)),
        has_inner(g.q.inner),
        signed_residual(g.q.signed_residual),
        residual(g.residual),
        float_bias(g.float_bias),
        c(static_cast<char*>(g.c)),
        ldc(g.ldc) {}
};

FI_INLINE VF u8s8_add_residual(const U8S8Output& o, VF v, int64_t at, int lanes) {
  if (o.has_inner) v = to_float(o.inner.around_zero(v)) * o.c_factor;
  const uint8_t* from = o.residual + at;
  const VF r = o.signed_residual ? load_s8(reinterpret_cast<const int8_t*>(from), lanes) : load_u8(from, lanes);
  return v + (r - o.r_zero) * o.r_factor;
}

template <bool kResidual>
FI_INLINE void u8s8_store_bytes(const U8S8Output& o, VF v, int64_t at, int lanes) {
  if constexpr (kResidual) v = u8s8_add_residual(o, v, at, lanes);
  store_low_bytes(reinterpret_cast<uint8_t*>(o.c) + at, o.last.around_zero(v) + o.last.zero, lanes);
}

template <U8S8Kind kKind>
FI_INLINE void u8s8_store(const GemmU8S8Tile& g, const U8S8Output& o, VI sum, VF scale, int64_t r, int64_t n,
                          int lanes) {
  const int64_t at = r * o.ldc + n;
  if constexpr (kKind == U8S8Kind::general) {
    if (g.output == QuantizedOutput::s32) return store(reinterpret_cast<int32_t*>(o.c) + at, sum, lanes);
    scale = scale * set1(g.row_scale[r * g.row_scale_step]);
    if (g.output == QuantizedOutput::f32) return u8s8_store<U8S8Kind::floats>(g, o, sum, scale, r, n, lanes);
    if (g.residual) return u8s8_store<U8S8Kind::residual>(g, o, sum, scale, r, n, lanes);
    return u8s8_store<U8S8Kind::bytes>(g, o, sum, scale, r, n, lanes);
  }
  VF y = to_float(sum) * scale;
  if constexpr (kKind == U8S8Kind::floats) {
    if (o.float_bias) y = y + load(o.float_bias + n, lanes);
    store(reinterpret_cast<float*>(o.c) + at, y, lanes);
  } else {
    u8s8_store_bytes<kKind == U8S8Kind::residual>(o, y, at, lanes);
  }
}

// What a block of columns adds to every row's sums, and its scales.
template <int NV>
struct U8S8Columns {
  alignas(64) int32_t start[NV * VI::W];
  alignas(64) float scale[NV * VI::W];
};

// The one zero point of A and the one row scale go into the columns', unless they differ by row. Whether all scales are
// narrowable.
template <int NV>
FI_INLINE bool u8s8_prepare(U8S8Columns<NV>& out, const GemmU8S8Tile& g, int64_t n0, int last, bool general) {
  const VI depth = set1i(static_cast<int32_t>(g.taps * g.k));
  bool narrow = true;
  FI_UNROLL for (int j = 0; j < NV; ++j) {
    const int64_t n = n0 + j * VI::W;
    const int lanes = j == NV - 1 ? last : VI::W;
    VI start = g.bias ? load(g.bias + n, lanes) : set1i(0);
    if (!g.a_zero_step) {
      VI sums = load(g.column_sum + n, lanes);
      if (g.b_zero) sums = sums - depth * load(g.b_zero + n, lanes);
      start = start - set1i(*g.a_zero) * sums;
    }
    store(out.start + j * VI::W, start);
    VF scale = g.column_scale ? load(g.column_scale + n, lanes) : set1(1.f);
    if (!general) scale = scale * set1(*g.row_scale);
    store(out.scale + j * VI::W, scale);
    narrow = narrow && narrowable(lanes == VI::W ? scale : select(first_n(lanes), scale, zero()));
  }
  return narrow;
}

// One row's vector around the zero point of the bytes, with its residual.
template <bool kResidual>
FI_INLINE VI u8s8_around_zero(const U8S8Output& o, VI sum, VF scale, int64_t at, int lanes) {
  VF y = to_float(sum) * scale;
  if constexpr (kResidual) y = u8s8_add_residual(o, y, at, lanes);
  return to_int(y);
}

// Stores of bytes, in whole vectors of them: as many rows at a time as fill one.
template <int MR, int NV, bool kResidual>
FI_INLINE void u8s8_store_rows(const U8S8Output& o, const ByteNarrow& narrow, const U8S8Columns<NV>& columns,
                               const VI (&acc)[MR][NV], int64_t r0, int64_t n0, int last) {
  constexpr int kRows = NV == 1 ? 4 : NV == 2 ? 2 : 1;
  auto* c = reinterpret_cast<uint8_t*>(o.c) + r0 * o.ldc + n0;
  FI_UNROLL for (int r = 0; r < MR; r += kRows) {
    VI v[4];
    FI_UNROLL for (int i = 0; i < 4; ++i) {
      const int row = r + i / NV < MR && i / NV < kRows ? r + i / NV : r, j = i < kRows * NV ? i % NV : 0;
      const int64_t at = (r0 + row) * o.ldc + n0 + j * VI::W;
      v[i] = i < kRows * NV && r + i / NV < MR
                 ? u8s8_around_zero<kResidual>(o, acc[row][j], load(columns.scale + j * VI::W), at,
                                               j == NV - 1 ? last : VI::W)
                 : v[0];
    }
    const VB b = narrow.in_order(v[0], v[1], v[2], v[3]);
    const int n = (NV - 1) * VI::W + last;
    store_bytes_from<0>(c + r * o.ldc, b, n);
    if constexpr (NV <= 2)
      if (r + 1 < MR) store_bytes_from<NV>(c + (r + 1) * o.ldc, b, n);
    if constexpr (NV == 1) {
      if (r + 2 < MR) store_bytes_from<2>(c + (r + 2) * o.ldc, b, n);
      if (r + 3 < MR) store_bytes_from<3>(c + (r + 3) * o.ldc, b, n);
    }
  }
}

// Not inlined: gcc would keep constants of the epilogue in registers from tile to tile, and sums of the loop in memory.
template <class Dot, int MR, int NV, U8S8Kind kKind>
static __attribute__((noinline)) void u8s8_block(const GemmU8S8Tile& g, const U8S8Columns<NV>& columns, int64_t r0,
                                                 int64_t n0, int last) {
  VI acc[MR][NV];
  FI_UNROLL for (int r = 0; r < MR; ++r) {
    FI_UNROLL for (int j = 0; j < NV; ++j) acc[r][j] = load(columns.start + j * VI::W);
  }
  u8s8_sums<Dot, MR, NV>(acc, g, r0, n0);
  // Without this gcc 12 keeps accumulators of the loop in memory for the sake of the epilogue (65 % of the peak, not
  // 98).
  FI_UNROLL for (int r = 0; r < MR; ++r) { FI_UNROLL for (int j = 0; j < NV; ++j) keep_in_register(acc[r][j]); }
  const U8S8Output out(g);
  if constexpr (kKind == U8S8Kind::bytes || kKind == U8S8Kind::residual) {
    const ByteNarrow narrow(g.q, g.output == QuantizedOutput::s8);
    return u8s8_store_rows<MR, NV, kKind == U8S8Kind::residual>(out, narrow, columns, acc, r0, n0, last);
  }
  FI_UNROLL for (int j = 0; j < NV; ++j) {
    const int64_t n = n0 + j * VI::W;
    const int lanes = j == NV - 1 ? last : VI::W;
    const VF scale = load(columns.scale + j * VI::W);
    VI per_za = set1i(0), zb = set1i(0);
    if constexpr (kKind == U8S8Kind::general) {
      if (g.b_zero) zb = load(g.b_zero + n, lanes);
      per_za = load(g.column_sum + n, lanes) - set1i(static_cast<int32_t>(g.taps * g.k)) * zb;
    }
    FI_UNROLL for (int r = 0; r < MR; ++r) {
      VI sum = acc[r][j];
      if constexpr (kKind == U8S8Kind::general) {
        if (g.a_zero_step) sum = sum - set1i(g.a_zero[(r0 + r) * g.a_zero_step]) * per_za;
        if (g.b_zero) sum = sum - zb * set1i(g.row_sum[r0 + r]);
      }
      u8s8_store<kKind>(g, out, sum, scale, r0 + r, n, lanes);
    }
  }
}

template <class Dot, int MR, int NV, U8S8Kind kKind>
FI_INLINE void u8s8_rows(const GemmU8S8Tile& g, const U8S8Columns<NV>& columns, int64_t r, int64_t n0, int last) {
  for (; r + MR <= g.rows; r += MR) u8s8_block<Dot, MR, NV, kKind>(g, columns, r, n0, last);
  if constexpr (MR > 1) u8s8_rows<Dot, (MR > 6 ? 6 : MR - 1), NV, kKind>(g, columns, r, n0, last);
}

template <class Dot, int MR, int NV>
FI_INLINE void u8s8_all_rows(const GemmU8S8Tile& g, int64_t n0, int last) {
  bool general = g.output == QuantizedOutput::s32 || g.b_zero || g.a_zero_step || g.row_scale_step;
  U8S8Columns<NV> columns;
  const bool narrow = u8s8_prepare(columns, g, n0, last, general) && narrowable(g.q);
  if (is_byte(g.output) && !general && !narrow) u8s8_prepare(columns, g, n0, last, general = true);
  if (general) return u8s8_rows<Dot, MR, NV, U8S8Kind::general>(g, columns, 0, n0, last);
  if (g.output == QuantizedOutput::f32) return u8s8_rows<Dot, MR, NV, U8S8Kind::floats>(g, columns, 0, n0, last);
  if (g.residual) return u8s8_rows<Dot, MR, NV, U8S8Kind::residual>(g, columns, 0, n0, last);
  u8s8_rows<Dot, MR, NV, U8S8Kind::bytes>(g, columns, 0, n0, last);
}

// Rows of a tile of NV vectors: where a panel is narrow, more of them, so that enough sums are under way at once (the
// dot product takes 4 cycles, and two begin in each). Only with registers to spare.
template <class Dot, int MR, int MAX, int NV>
constexpr int u8s8_tile_rows() {
  return Dot::wide && NV < MAX ? 8 : MR;
}

// All columns: MAX vectors at a time, then the rest.
template <class Dot, int MR, int MAX, int NV = MAX>
FI_INLINE void u8s8_columns(const GemmU8S8Tile& g, int64_t n0) {
  if constexpr (NV == MAX)
    for (; g.cols - n0 > NV * VI::W; n0 += NV * VI::W)
      u8s8_all_rows<Dot, u8s8_tile_rows<Dot, MR, MAX, NV>(), NV>(g, n0, VI::W);
  const int64_t left = g.cols - n0;
  if (NV == 1 || left > (NV - 1) * VI::W)
    return u8s8_all_rows<Dot, u8s8_tile_rows<Dot, MR, MAX, NV>(), NV>(g, n0, static_cast<int>(left) - (NV - 1) * VI::W);
  if constexpr (NV > 1) u8s8_columns<Dot, MR, MAX, NV - 1>(g, n0);
}

}  // namespace fi::FI_ISA
