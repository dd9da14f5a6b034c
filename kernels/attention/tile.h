// SPDX-License-Identifier: Apache-2.0
// The two products of attention as register tiles, C[m, n] = Σ_k A(m, k)·B[k, n]: A is broadcast element by element at
// any strides, B and C are read as vectors along n. Each C is one chain of multiply-adds with k ascending.
#pragma once
#include "kernels/simd/simd.h"

#define FI_UNROLL _Pragma("GCC unroll 16")

namespace fi::FI_ISA {

// Vectors per register tile, and rows for a width of NV vectors: at least 8 chains hide the latency of two
// multiply-adds per cycle, and the registers hold them with one row of B.
constexpr int kTileVectors = VF::W == 16 ? 4 : 2;
constexpr int tile_rows(int nv) {
  if (VF::W == 16) return nv == 4 ? 6 : nv == 3 ? 8 : 12;
  if (VF::W == 8) return nv == 2 ? 6 : 12;
  return nv == 2 ? 4 : 8;
}

// What is multiplied: floats; Pairs in blocks_bf16.h. A is one element for all lanes, B one of each lane.
struct Floats {
  using A = VF;
  using B = VF;
  FI_INLINE VF all(const float* p) { return set1(*p); }
  FI_INLINE VF each(const float* p) { return load(p); }
  FI_INLINE VF each(const float* p, int n) { return load(p, n); }
  FI_INLINE VF add(VF sum, VF a, VF b) { return fma(a, b, sum); }
};

struct Operands {
  const float* a;
  int64_t a_row, a_k;
  const float* b;
  int64_t ldb;
  int64_t k;
};

// What is done with the sums.
struct StoreScores {
  float* c;
  int64_t ldc;
};
struct StoreScaled {
  float* c;
  int64_t ldc;
  float scale;
};
template <class T>  // float, or uint16_t for bfloat16
struct StoreOutput {
  float* sums;  // [rows][ld]
  int64_t ld;
  const float* keep;  // [rows]: factor of the sums so far, null: there are none
  const float* last;  // [rows]: factor at the end, null: this is not the end
  T* const* out;      // [rows], at the end
};
FI_INLINE void store_as(float* p, VF v) { store(p, v); }
FI_INLINE void store_as(float* p, VF v, int n) { store(p, v, n); }
FI_INLINE void store_as(uint16_t* p, VF v) { store_bf16(p, v); }
FI_INLINE void store_as(uint16_t* p, VF v, int n) { store_bf16(p, v, n); }

template <int NV>
FI_INLINE VF load_at(const float* p, int j, int tail) {
  return j == NV - 1 && tail < VF::W ? load(p + j * VF::W, tail) : load(p + j * VF::W);
}

template <int MR, int NV>
FI_INLINE void start(const StoreScores&, VF (&acc)[MR][NV], int64_t, int64_t, int) {
  FI_UNROLL for (int r = 0; r < MR; ++r) { FI_UNROLL for (int j = 0; j < NV; ++j) acc[r][j] = zero(); }
}
template <int MR, int NV>
FI_INLINE void finish(const StoreScores& s, const VF (&acc)[MR][NV], int64_t m, int64_t n, int) {
  FI_UNROLL for (int r = 0; r < MR; ++r) {
    FI_UNROLL for (int j = 0; j < NV; ++j) store(s.c + (m + r) * s.ldc + n + j * VF::W, acc[r][j]);
  }
}
template <int MR, int NV>
FI_INLINE void start(const StoreScaled&, VF (&acc)[MR][NV], int64_t, int64_t, int) {
  start(StoreScores{}, acc, 0, 0, 0);
}
template <int MR, int NV>
FI_INLINE void finish(const StoreScaled& s, VF (&acc)[MR][NV], int64_t m, int64_t n, int tail) {
  const VF f = set1(s.scale);
  FI_UNROLL for (int r = 0; r < MR; ++r) { FI_UNROLL for (int j = 0; j < NV; ++j) acc[r][j] = acc[r][j] * f; }
  finish(StoreScores{s.c, s.ldc}, acc, m, n, tail);
}
template <int MR, int NV, class T>
FI_INLINE void start(const StoreOutput<T>& s, VF (&acc)[MR][NV], int64_t m, int64_t n, int) {
  if (!s.keep) return start(StoreScores{}, acc, m, n, 0);
  FI_UNROLL for (int r = 0; r < MR; ++r) {
    const VF f = set1(s.keep[m + r]);
    FI_UNROLL for (int j = 0; j < NV; ++j) acc[r][j] = load(s.sums + (m + r) * s.ld + n + j * VF::W) * f;
  }
}
template <int MR, int NV, class T>
FI_INLINE void finish(const StoreOutput<T>& s, const VF (&acc)[MR][NV], int64_t m, int64_t n, int tail) {
  if (!s.last) return finish(StoreScores{s.sums, s.ld}, acc, m, n, tail);
  FI_UNROLL for (int r = 0; r < MR; ++r) {
    const VF f = set1(s.last[m + r]);
    T* y = s.out[m + r] + n;
    FI_UNROLL for (int j = 0; j < NV; ++j) {
      const VF v = acc[r][j] * f;
      if (j == NV - 1 && tail < VF::W)
        store_as(y + j * VF::W, v, tail);
      else
        store_as(y + j * VF::W, v);
    }
  }
}

// kPartial: the last vector of B has `tail` lanes.
template <class Mul, int MR, int NV, bool kPartial, class Store>
static void tile(const Operands& x, const Store& s, int64_t m, int64_t n, int tail) {
  VF acc[MR][NV];
  start(s, acc, m, n, tail);
  const float *a = x.a + m * x.a_row, *b = x.b + n;
  const int64_t row = x.a_row;
  for (int64_t k = 0; k < x.k; ++k, a += x.a_k, b += x.ldb) {
    typename Mul::B bv[NV];
    FI_UNROLL for (int j = 0; j < NV; ++j) {
      const bool part = kPartial && j == NV - 1 && tail < VF::W;
      bv[j] = part ? Mul::each(b + j * VF::W, tail) : Mul::each(b + j * VF::W);
    }
    FI_UNROLL for (int r = 0; r < MR; ++r) {
      const typename Mul::A av = Mul::all(a + r * row);
      FI_UNROLL for (int j = 0; j < NV; ++j) acc[r][j] = Mul::add(acc[r][j], av, bv[j]);
    }
  }
  finish(s, acc, m, n, tail);
}

template <class Mul, int MR, int NV, bool kPartial, class Store>
FI_INLINE void tile_column(const Operands& x, const Store& s, int64_t m, int64_t rows, int64_t n, int tail) {
  for (; m + MR <= rows; m += MR) tile<Mul, MR, NV, kPartial>(x, s, m, n, tail);
  constexpr int kLess = MR > 8 ? 8 : MR > 4 ? 4 : MR / 2;
  if constexpr (MR > 1) {
    if (m < rows) tile_column<Mul, kLess, NV, kPartial>(x, s, m, rows, n, tail);
  }
}

template <class Mul, int NV, class Store>
static void tile_columns(const Operands& x, const Store& s, int64_t rows, int64_t n, int64_t vectors, int tail) {
  if constexpr (NV > 1) {
    if (vectors < NV) return tile_columns<Mul, NV - 1>(x, s, rows, n, vectors, tail);
  }
  if (tail < VF::W) return tile_column<Mul, tile_rows(NV), NV, true>(x, s, 0, rows, n, tail);
  tile_column<Mul, tile_rows(NV), NV, false>(x, s, 0, rows, n, VF::W);
}

// All rows and `cols` columns, in columns of tiles that are as equal as can be.
template <class Mul = Floats, class Store>
static void product(const Operands& x, const Store& s, int64_t rows, int64_t cols) {
  const int64_t vectors = (cols + VF::W - 1) / VF::W, tiles = (vectors + kTileVectors - 1) / kTileVectors;
  for (int64_t t = 0; t < tiles; ++t) {
    const int64_t first = vectors * t / tiles, end = vectors * (t + 1) / tiles;
    const int tail = end == vectors ? static_cast<int>(cols - (vectors - 1) * VF::W) : VF::W;
    tile_columns<Mul, kTileVectors>(x, s, rows, first * VF::W, end - first, tail);
  }
}

}  // namespace fi::FI_ISA
