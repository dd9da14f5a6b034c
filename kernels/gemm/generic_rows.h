// SPDX-License-Identifier: Apache-2.0
// The f32 microkernel for rows of A that lie at one distance (GemmTile::a_row): a few base registers reach all of them,
// so narrow panels can take tiles of 14 or 16 rows. With pointers per row the tile of one vector was bound by loads: 8
// rows took 11 of them for 8 products.
#pragma once
#include "kernels/gemm/generic.h"

namespace fi::FI_ISA {

template <int MR, int NV>
FI_INLINE void rows_sums(VF (&acc)[MR][NV], const GemmTile& g, int64_t r0, int64_t n0) {
  constexpr int kBases = (MR + 2) / 3;  // each reaches three rows: 0, 1 and 2 times the distance are address forms
  const float* b = g.b + n0;
  const int64_t ldb = g.ldb, d = g.a_row, k_end = g.k;
  for (int64_t t = 0; t < g.taps; ++t) {
    const float* a[kBases];
    FI_UNROLL for (int j = 0; j < kBases; ++j) a[j] = g.a[t * g.a_tap] + g.a_offset + (r0 + 3 * j) * d;
    for (int64_t k = 0; k < k_end; ++k, b += ldb) {
      VF bv[NV];
      FI_UNROLL for (int j = 0; j < NV; ++j) bv[j] = load(b + j * VF::W);
      FI_UNROLL for (int r = 0; r < MR; ++r) {
        const VF av = set1(a[r / 3][r % 3 * d]);
        FI_UNROLL for (int j = 0; j < NV; ++j) acc[r][j] = fma(av, bv[j], acc[r][j]);
      }
      FI_UNROLL for (int j = 0; j < kBases; ++j) a[j] += 1;
    }
  }
}

// Activations that are no clamp: the whole tile goes through a buffer in L1 in one call.
template <int MR, int NV>
FI_INLINE void rows_activate(VF (&acc)[MR][NV], const GemmTile& g, int64_t r0, int64_t n0, int last) {
  alignas(64) float tile[MR * NV * VF::W];
  FI_UNROLL for (int r = 0; r < MR; ++r) {
    FI_UNROLL for (int j = 0; j < NV; ++j) store(tile + (r * NV + j) * VF::W, acc[r][j]);
  }
  activate_row(g.epilogue, tile, nullptr, tile, MR * NV * VF::W);
  FI_UNROLL for (int r = 0; r < MR; ++r) {
    FI_UNROLL for (int j = 0; j < NV; ++j) acc[r][j] = load(tile + (r * NV + j) * VF::W);
  }
  if ((g.residual || g.residual_rows) && g.epilogue.residual_after) gemm_add_residual<MR, NV>(acc, g, r0, n0, last);
}

template <int MR, int NV>
static void rows_block(const GemmTile& g, int64_t r0, int64_t n0, int last) {
  VF acc[MR][NV];
  FI_UNROLL for (int r = 0; r < MR; ++r) { FI_UNROLL for (int j = 0; j < NV; ++j) acc[r][j] = zero(); }
  if (g.accumulate) {
    FI_UNROLL for (int r = 0; r < MR; ++r) {
      FI_UNROLL for (int j = 0; j < NV; ++j) acc[r][j] = gemm_load<NV>(gemm_c_row(g, r0 + r) + n0, j, last);
    }
  }
  rows_sums<MR, NV>(acc, g, r0, n0);
  if (!g.partial) {
    gemm_finish<MR, NV>(acc, g, r0, n0, last);
    if (!is_clamp(g.epilogue.activation)) rows_activate<MR, NV>(acc, g, r0, n0, last);
  }
  FI_UNROLL for (int r = 0; r < MR; ++r) {
    float* c = gemm_c_row(g, r0 + r) + n0;
    FI_UNROLL for (int j = 0; j < NV; ++j) gemm_store<NV>(c, acc[r][j], j, last);
  }
}

// Rows from r0 on: MR at a time, the rest by halves.
template <int MR, int NV>
FI_INLINE void rows_of(const GemmTile& g, int64_t r0, int64_t n0, int last) {
  for (; r0 + MR <= g.rows; r0 += MR) rows_block<MR, NV>(g, r0, n0, last);
  if constexpr (MR > 1) rows_of<MR / 2, NV>(g, r0, n0, last);
}

// All columns, MAX vectors at a time. R1, R2, ...: rows of a tile of that many vectors.
template <int MAX, int R1, int R2, int R3, int R4>
FI_INLINE void rows_columns(const GemmTile& g) {
  for (int64_t n0 = 0; n0 < g.cols; n0 += MAX * VF::W) {
    const int64_t left = g.cols - n0 < MAX * VF::W ? g.cols - n0 : MAX * VF::W;
    const int64_t vectors = (left + VF::W - 1) / VF::W;
    const int last = static_cast<int>(left - (vectors - 1) * VF::W);
    if (vectors == 1) rows_of<R1, 1>(g, 0, n0, last);
    if (MAX >= 2 && vectors == 2) rows_of<R2, 2>(g, 0, n0, last);
    if constexpr (MAX >= 3)
      if (vectors == 3) rows_of<R3, 3>(g, 0, n0, last);
    if constexpr (MAX >= 4)
      if (vectors == 4) rows_of<R4, 4>(g, 0, n0, last);
  }
}

// y[w * channels + c] = x[c * plane + w], w < count.
template <int C>
FI_INLINE void interleave_channels(const float* __restrict x, int64_t plane, int64_t count, float* __restrict y) {
  for (int64_t w = 0; w < count; ++w) FI_UNROLL for (int c = 0; c < C; ++c) y[w * C + c] = x[c * plane + w];
}
FI_INLINE void interleave(const float* x, int64_t plane, int64_t channels, int64_t count, float* y) {
  if (channels == 1) return interleave_channels<1>(x, plane, count, y);
  if (channels == 2) return interleave_channels<2>(x, plane, count, y);
  if (channels == 3) return interleave_channels<3>(x, plane, count, y);
  if (channels == 4) return interleave_channels<4>(x, plane, count, y);
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t w = 0; w < count; ++w) y[w * channels + c] = x[c * plane + w];
}

}  // namespace fi::FI_ISA

// What the table's row `symbol` has beside the microkernel: rows of A at one distance, and the way from planes to
// pixels.
#define FI_GEMM_ROWS(symbol, ...)                                                                      \
  namespace fi::FI_ISA {                                                                               \
  void rows_##symbol(const GemmTile& g) { rows_columns<__VA_ARGS__>(g); }                              \
  void interleave_##symbol(const float* x, int64_t plane, int64_t channels, int64_t count, float* y) { \
    interleave(x, plane, channels, count, y);                                                          \
  }                                                                                                    \
  }
