// SPDX-License-Identifier: Apache-2.0
// The f32 microkernel over the vector type of the instruction set. Contract: kernels/gemm/gemm.h.
#pragma once
#include "kernels/gemm/activate.h"
#include "kernels/gemm/gemm.h"
#include "kernels/gemm/generic_pack.h"

#define FI_UNROLL _Pragma("GCC unroll 16")

namespace fi::FI_ISA {

FI_INLINE float* gemm_c_row(const GemmTile& g, int64_t r) { return g.c_rows ? g.c_rows[r] : g.c + r * g.ldc; }
FI_INLINE const float* gemm_residual_row(const GemmTile& g, int64_t r) {
  return g.residual_rows ? g.residual_rows[r] : g.residual + r * g.ld_residual;
}

// Vector j of NV at p; the last one has `last` lanes.
template <int NV>
FI_INLINE VF gemm_load(const float* p, int j, int last) {
  return j == NV - 1 && last < VF::W ? load(p + j * VF::W, last) : load(p + j * VF::W);
}
template <int NV>
FI_INLINE void gemm_store(float* p, VF v, int j, int last) {
  if (j == NV - 1 && last < VF::W)
    store(p + j * VF::W, v, last);
  else
    store(p + j * VF::W, v);
}

// Bytes of B to fetch ahead. With cold weights and 4 to 32 rows this gains 6 to 9 %: the hardware's streams end at
// pages.
constexpr int kAhead = 4096;
constexpr int kLine = VF::W < 16 ? 16 / VF::W : 1;  // vectors in a cache line

// What the caller needs next, cut by rows: a row tile issues one prefetch per k, `step` bytes apart.
struct GemmAhead {
  const char* at;
  int64_t per_row, step;
};
FI_INLINE GemmAhead gemm_ahead(const GemmTile& g, int mr) {
  const int64_t depth = g.taps * g.k;
  if (g.ahead == 0 || depth == 0) return {reinterpret_cast<const char*>(g.b), 0, 0};
  const int64_t per_row = g.ahead / g.rows, step = per_row * mr / depth + 1;
  return {reinterpret_cast<const char*>(g.b + depth * g.ldb), per_row, step < 64 ? step : 64};
}

template <int MR, int NV>
FI_INLINE void gemm_sums(VF (&acc)[MR][NV], const GemmTile& g, const GemmAhead& ahead, int64_t r0, int64_t n0) {
  const float* b = g.b + n0;
  const int64_t ldb = g.ldb, k_end = g.k;
  const char* next = ahead.at + r0 * ahead.per_row;
  for (int64_t t = 0; t < g.taps; ++t) {
    const float* a[MR];
    FI_UNROLL for (int r = 0; r < MR; ++r) a[r] = g.a[t * g.a_tap + r0 + r] + g.a_offset;
    for (int64_t k = 0; k < k_end; ++k, b += ldb) {
      VF bv[NV];
      FI_UNROLL for (int j = 0; j < NV; ++j) bv[j] = load(b + j * VF::W);
      // One per line: loads, broadcasts and fetches share two ports, and on AVX2 they nearly fill them.
      FI_UNROLL for (int j = 0; j < NV; j += kLine) {
        __builtin_prefetch(reinterpret_cast<const char*>(b + j * VF::W) + kAhead);
      }
      __builtin_prefetch(next, 0, 2);
      next += ahead.step;
      FI_UNROLL for (int r = 0; r < MR; ++r) {
        const VF av = set1(a[r][k]);
        FI_UNROLL for (int j = 0; j < NV; ++j) acc[r][j] = fma(av, bv[j], acc[r][j]);
      }
    }
  }
}

template <int MR, int NV>
FI_INLINE void gemm_add_residual(VF (&acc)[MR][NV], const GemmTile& g, int64_t r0, int64_t n0, int last) {
  FI_UNROLL for (int r = 0; r < MR; ++r) {
    const float* p = gemm_residual_row(g, r0 + r) + n0;
    FI_UNROLL for (int j = 0; j < NV; ++j) acc[r][j] = acc[r][j] + gemm_load<NV>(p, j, last);
  }
}

// The epilogue up to the activation, and the activation too if it is a clamp.
template <int MR, int NV>
FI_INLINE void gemm_finish(VF (&acc)[MR][NV], const GemmTile& g, int64_t r0, int64_t n0, int last) {
  const Epilogue& e = g.epilogue;
  const bool residual = g.residual || g.residual_rows;
  if (e.scale != 1.f) {
    const VF s = set1(e.scale);
    FI_UNROLL for (int r = 0; r < MR; ++r) { FI_UNROLL for (int j = 0; j < NV; ++j) acc[r][j] = acc[r][j] * s; }
  }
  if (g.bias) {
    FI_UNROLL for (int j = 0; j < NV; ++j) {
      const VF b = gemm_load<NV>(g.bias + n0, j, last);
      FI_UNROLL for (int r = 0; r < MR; ++r) acc[r][j] = acc[r][j] + b;
    }
  }
  if (residual && !e.residual_after) gemm_add_residual<MR, NV>(acc, g, r0, n0, last);
  if (e.activation == Activation::relu) {
    FI_UNROLL for (int r = 0; r < MR; ++r) {
      FI_UNROLL for (int j = 0; j < NV; ++j) acc[r][j] = max(zero(), acc[r][j]);
    }
  } else if (e.activation == Activation::clip) {
    const VF lo = set1(e.alpha), hi = set1(e.beta);
    FI_UNROLL for (int r = 0; r < MR; ++r) {
      FI_UNROLL for (int j = 0; j < NV; ++j) acc[r][j] = clamp(acc[r][j], lo, hi);
    }
  }
  if (residual && e.residual_after && is_clamp(e.activation)) gemm_add_residual<MR, NV>(acc, g, r0, n0, last);
}

// A register tile: MR rows from row r0, NV vectors from column n0, `last` lanes in the last vector.
template <int MR, int NV>
static void gemm_block(const GemmTile& g, const GemmAhead& ahead, int64_t r0, int64_t n0, int last) {
  VF acc[MR][NV];
  FI_UNROLL for (int r = 0; r < MR; ++r) { FI_UNROLL for (int j = 0; j < NV; ++j) acc[r][j] = zero(); }
  if (g.accumulate) {
    FI_UNROLL for (int r = 0; r < MR; ++r) {
      FI_UNROLL for (int j = 0; j < NV; ++j) acc[r][j] = gemm_load<NV>(gemm_c_row(g, r0 + r) + n0, j, last);
    }
  }
  gemm_sums<MR, NV>(acc, g, ahead, r0, n0);
  if (!g.partial) {
    gemm_finish<MR, NV>(acc, g, r0, n0, last);
    if (!is_clamp(g.epilogue.activation)) {
      float rows[MR][NV * VF::W];
      FI_UNROLL for (int r = 0; r < MR; ++r) {
        FI_UNROLL for (int j = 0; j < NV; ++j) store(rows[r] + j * VF::W, acc[r][j]);
      }
      const bool residual = (g.residual || g.residual_rows) && g.epilogue.residual_after;
      for (int r = 0; r < MR; ++r)
        activate_row(g.epilogue, rows[r], residual ? gemm_residual_row(g, r0 + r) + n0 : nullptr,
                     gemm_c_row(g, r0 + r) + n0, (NV - 1) * VF::W + last);
      return;
    }
  }
  FI_UNROLL for (int r = 0; r < MR; ++r) {
    float* c = gemm_c_row(g, r0 + r) + n0;
    FI_UNROLL for (int j = 0; j < NV; ++j) gemm_store<NV>(c, acc[r][j], j, last);
  }
}

// A register tile of 1..MR rows.
template <int MR, int NV>
FI_INLINE void gemm_up_to(int64_t rows, const GemmTile& g, const GemmAhead& ahead, int64_t r0, int64_t n0, int last) {
  if constexpr (MR > 1)
    if (rows < MR) return gemm_up_to<MR - 1, NV>(rows, g, ahead, r0, n0, last);
  gemm_block<MR, NV>(g, ahead, r0, n0, last);
}

// All rows of NV vectors: MR at a time. The last MR + 1 .. 2 MR - 1 rows are halved, as a tile of few rows would wait
// for B.
template <int MR, int NV>
FI_INLINE void gemm_rows(const GemmTile& g, int64_t n0, int last) {
  const GemmAhead ahead = gemm_ahead(g, MR);
  for (int64_t r = 0; r < g.rows;) {
    const int64_t left = g.rows - r, rows = left >= 2 * MR ? MR : left > MR ? (left + 1) / 2 : left;
    gemm_up_to<MR, NV>(rows, g, ahead, r, n0, last);
    r += rows;
  }
}

// All columns: MAX vectors at a time, then the rest. One vector alone takes 8 rows: 6 chains of latency 4 would fill
// two multipliers to 3/4 only (and 12 row pointers do not fit the general registers).
template <int MR, int MAX, int NV = MAX>
FI_INLINE void gemm_columns(const GemmTile& g, int64_t n0) {
  constexpr int kRows = NV == 1 ? 8 : MR;
  if constexpr (NV == MAX)
    for (; g.cols - n0 > NV * VF::W; n0 += NV * VF::W) gemm_rows<kRows, NV>(g, n0, VF::W);
  const int64_t left = g.cols - n0;
  if (NV == 1 || left > (NV - 1) * VF::W) return gemm_rows<kRows, NV>(g, n0, static_cast<int>(left) - (NV - 1) * VF::W);
  if constexpr (NV > 1) gemm_columns<MR, MAX, NV - 1>(g, n0);
}

}  // namespace fi::FI_ISA
