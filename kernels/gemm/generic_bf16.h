// SPDX-License-Identifier: Apache-2.0
// The bfloat16 microkernel over the vector type of the instruction set. Contract: kernels/gemm/gemm_bf16.h.
// A multiplier gives the instruction: types A2 and B2 (a pair of k's of one row, of a vector of columns) made by
// split_a and split_b from 32-bit lanes of two bfloat16, and VF dot(VF sum, A2, B2) = sum + the two products per lane.
#pragma once
#include "kernels/gemm/activate.h"
#include "kernels/gemm/gemm_bf16.h"

#ifndef FI_UNROLL
#define FI_UNROLL _Pragma("GCC unroll 16")
#endif

namespace fi::FI_ISA {

// Any machine: the halves of a pair are the upper bits of two floats.
struct WidenedDot {
  struct A2 {
    VF even, odd;
  };
  using B2 = A2;
  FI_INLINE A2 split_a(VI a) { return {as_float(shl<16>(a)), as_float(a & set1i(static_cast<int32_t>(0xffff0000u)))}; }
  FI_INLINE B2 split_b(VI b) { return split_a(b); }
  FI_INLINE VF dot(VF sum, const A2& a, const B2& b) { return fma(a.odd, b.odd, fma(a.even, b.even, sum)); }
};

template <class Dot, int MR, int NV>
FI_INLINE void bf16_pair(VF (&acc)[MR][NV], const int32_t (&a)[MR], const uint16_t* b) {
  typename Dot::B2 bv[NV];
  FI_UNROLL for (int j = 0; j < NV; ++j) bv[j] = Dot::split_b(load(reinterpret_cast<const int32_t*>(b) + j * VI::W));
  FI_UNROLL for (int r = 0; r < MR; ++r) {
    const typename Dot::A2 av = Dot::split_a(set1i(a[r]));
    FI_UNROLL for (int j = 0; j < NV; ++j) acc[r][j] = Dot::dot(acc[r][j], av, bv[j]);
  }
}

// What the caller needs next, cut by rows: a row tile issues one prefetch per pair, `step` bytes apart.
struct BF16Ahead {
  const char* at;
  int64_t per_row, step;
};
FI_INLINE BF16Ahead bf16_ahead(const GemmBF16Tile& g, int mr) {
  const int64_t pairs = g.taps * ((g.k + 1) / 2);
  // A single row tile cannot get ahead of itself.
  if (g.ahead == 0 || pairs == 0 || g.rows <= mr) return {reinterpret_cast<const char*>(g.b), 0, 0};
  const int64_t per_row = g.ahead / g.rows, step = per_row * mr / pairs + 1;
  return {reinterpret_cast<const char*>(g.b + pairs * g.width * 2), per_row, step < 64 ? step : 64};
}

template <class Dot, int MR, int NV>
FI_INLINE void bf16_sums(VF (&acc)[MR][NV], const GemmBF16Tile& g, const BF16Ahead& ahead, int64_t r0, int64_t n0) {
  constexpr int kAhead = 4096;  // bytes of B to fetch ahead, as in the f32 microkernel
  const uint16_t* b = g.b + n0 * 2;
  const int64_t step = g.width * 2, whole = g.k / 2 * 2, k = g.k;
  const char* next = ahead.at + r0 * ahead.per_row;
  for (int64_t t = 0; t < g.taps; ++t) {
    const uint16_t* a[MR];
    FI_UNROLL for (int r = 0; r < MR; ++r) a[r] = g.a[t * g.a_tap + r0 + r] + g.a_offset;
    int32_t pair[MR];
    for (int64_t i = 0; i < whole; i += 2, b += step) {
      FI_UNROLL for (int j = 0; j < NV; ++j)
          __builtin_prefetch(reinterpret_cast<const char*>(b + j * 2 * VF::W) + kAhead);
      __builtin_prefetch(next, 0, 2);
      next += ahead.step;
      FI_UNROLL for (int r = 0; r < MR; ++r) std::memcpy(&pair[r], a[r] + i, 4);
      bf16_pair<Dot, MR, NV>(acc, pair, b);
    }
    if (whole < k) {
      FI_UNROLL for (int r = 0; r < MR; ++r) pair[r] = a[r][whole];
      bf16_pair<Dot, MR, NV>(acc, pair, b);
      b += step;
    }
  }
}

// Vector at element `at` of a row of either type.
FI_INLINE VF bf16_load_row(const void* row, bool bf16, int64_t at, int lanes) {
  if (bf16) {
    const uint16_t* p = static_cast<const uint16_t*>(row) + at;
    return lanes == VF::W ? load_bf16(p) : load_bf16(p, lanes);
  }
  const float* p = static_cast<const float*>(row) + at;
  return lanes == VF::W ? load(p) : load(p, lanes);
}
FI_INLINE void bf16_store_row(void* row, bool bf16, int64_t at, VF v, int lanes) {
  if (bf16) {
    uint16_t* p = static_cast<uint16_t*>(row) + at;
    lanes == VF::W ? store_bf16(p, v) : store_bf16(p, v, lanes);
  } else {
    float* p = static_cast<float*>(row) + at;
    lanes == VF::W ? store(p, v) : store(p, v, lanes);
  }
}

FI_INLINE const void* bf16_residual_row(const GemmBF16Tile& g, int64_t r) {
  return static_cast<const char*>(g.residual) + r * g.ld_residual * (g.residual_bf16 ? 2 : 4);
}

template <int MR, int NV>
FI_INLINE void bf16_add_residual(VF (&acc)[MR][NV], const GemmBF16Tile& g, int64_t r0, int64_t n0, int last) {
  FI_UNROLL for (int r = 0; r < MR; ++r) {
    const void* row = bf16_residual_row(g, r0 + r);
    FI_UNROLL for (int j = 0; j < NV; ++j) acc[r][j] =
        acc[r][j] + bf16_load_row(row, g.residual_bf16, n0 + j * VF::W, j == NV - 1 ? last : VF::W);
  }
}

// act(x) + residual where the activation is too long for registers: through a buffer in L1.
template <int MR, int NV>
FI_INLINE void bf16_activate(VF (&acc)[MR][NV], const Epilogue& e) {
  float rows[MR * NV * VF::W];
  FI_UNROLL for (int r = 0; r < MR; ++r) {
    FI_UNROLL for (int j = 0; j < NV; ++j) store(rows + (r * NV + j) * VF::W, acc[r][j]);
  }
  activate_row(e, rows, nullptr, rows, MR * NV * VF::W);
  FI_UNROLL for (int r = 0; r < MR; ++r) {
    FI_UNROLL for (int j = 0; j < NV; ++j) acc[r][j] = load(rows + (r * NV + j) * VF::W);
  }
}

template <int MR, int NV>
FI_INLINE void bf16_finish(VF (&acc)[MR][NV], const GemmBF16Tile& g, int64_t r0, int64_t n0, int last) {
  const Epilogue& e = g.epilogue;
  if (e.scale != 1.f) {
    const VF s = set1(e.scale);
    FI_UNROLL for (int r = 0; r < MR; ++r) { FI_UNROLL for (int j = 0; j < NV; ++j) acc[r][j] = acc[r][j] * s; }
  }
  if (g.bias) {
    FI_UNROLL for (int j = 0; j < NV; ++j) {
      const VF b = bf16_load_row(g.bias, false, n0 + j * VF::W, j == NV - 1 ? last : VF::W);
      FI_UNROLL for (int r = 0; r < MR; ++r) acc[r][j] = acc[r][j] + b;
    }
  }
  if (g.residual && !e.residual_after) bf16_add_residual<MR, NV>(acc, g, r0, n0, last);
  if (e.activation == Activation::relu) {
    FI_UNROLL for (int r = 0; r < MR; ++r) {
      FI_UNROLL for (int j = 0; j < NV; ++j) acc[r][j] = max(zero(), acc[r][j]);
    }
  } else if (e.activation == Activation::clip) {
    const VF lo = set1(e.alpha), hi = set1(e.beta);
    FI_UNROLL for (int r = 0; r < MR; ++r) {
      FI_UNROLL for (int j = 0; j < NV; ++j) acc[r][j] = clamp(acc[r][j], lo, hi);
    }
  } else if (e.activation != Activation::none) {
    bf16_activate<MR, NV>(acc, e);
  }
  if (g.residual && e.residual_after) bf16_add_residual<MR, NV>(acc, g, r0, n0, last);
}

// A register tile: MR rows from row r0, NV vectors from column n0, `last` lanes in the last vector.
template <class Dot, int MR, int NV>
static void bf16_block(const GemmBF16Tile& g, const BF16Ahead& ahead, int64_t r0, int64_t n0, int last) {
  VF acc[MR][NV];
  FI_UNROLL for (int r = 0; r < MR; ++r) { FI_UNROLL for (int j = 0; j < NV; ++j) acc[r][j] = zero(); }
  bf16_sums<Dot, MR, NV>(acc, g, ahead, r0, n0);
  bf16_finish<MR, NV>(acc, g, r0, n0, last);
  FI_UNROLL for (int r = 0; r < MR; ++r) {
    void* row = g.c_rows ? g.c_rows[r0 + r] : static_cast<char*>(g.c) + (r0 + r) * g.ldc * (g.c_bf16 ? 2 : 4);
    FI_UNROLL for (int j = 0; j < NV; ++j)
        bf16_store_row(row, g.c_bf16, n0 + j * VF::W, acc[r][j], j == NV - 1 ? last : VF::W);
  }
}

template <class Dot, int MR, int NV>
FI_INLINE void bf16_up_to(int64_t rows, const GemmBF16Tile& g, const BF16Ahead& ahead, int64_t r0, int64_t n0,
                          int last) {
  if constexpr (MR > 1)
    if (rows < MR) return bf16_up_to<Dot, MR - 1, NV>(rows, g, ahead, r0, n0, last);
  bf16_block<Dot, MR, NV>(g, ahead, r0, n0, last);
}

// MR rows at a time; the last MR + 1 .. 2 MR - 1 are halved, as a tile of few rows would wait for B.
template <class Dot, int MR, int NV>
FI_INLINE void bf16_rows(const GemmBF16Tile& g, int64_t n0, int last) {
  const BF16Ahead ahead = bf16_ahead(g, MR);
  for (int64_t r = 0; r < g.rows;) {
    const int64_t left = g.rows - r, rows = left >= 2 * MR ? MR : left > MR ? (left + 1) / 2 : left;
    bf16_up_to<Dot, MR, NV>(rows, g, ahead, r, n0, last);
    r += rows;
  }
}

// All columns: MAX vectors at a time, then the rest. One vector alone takes 8 rows: more chains to fill the
// multipliers.
template <class Dot, int MR, int MAX, int NV = MAX>
FI_INLINE void bf16_columns(const GemmBF16Tile& g, int64_t n0) {
  constexpr int kRows = NV == 1 ? 8 : MR;
  if constexpr (NV == MAX)
    for (; g.cols - n0 > NV * VF::W; n0 += NV * VF::W) bf16_rows<Dot, kRows, NV>(g, n0, VF::W);
  const int64_t left = g.cols - n0;
  if (NV == 1 || left > (NV - 1) * VF::W)
    return bf16_rows<Dot, kRows, NV>(g, n0, static_cast<int>(left) - (NV - 1) * VF::W);
  if constexpr (NV > 1) bf16_columns<Dot, MR, MAX, NV - 1>(g, n0);
}

FI_INLINE void bf16_round(const float* x, uint16_t* y, int64_t n) {
  int64_t i = 0;
  for (; i + VF::W <= n; i += VF::W) store_bf16(y + i, load(x + i));
  if (i < n) store_bf16(y + i, load(x + i, static_cast<int>(n - i)), static_cast<int>(n - i));
}

}  // namespace fi::FI_ISA

// A variant: the microkernel and the rounding of rows.
#define FI_BF16_VARIANT(symbol, Dot, mr, nv)                                           \
  namespace fi::FI_ISA {                                                               \
  void symbol(const GemmBF16Tile& g) { bf16_columns<Dot, mr, nv>(g, 0); }              \
  void round_##symbol(const float* x, uint16_t* y, int64_t n) { bf16_round(x, y, n); } \
  }
