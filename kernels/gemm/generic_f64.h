// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "kernels/gemm/tile_f64.h"
#include "kernels/simd/simd.h"

namespace fi::FI_ISA {

// As wide as a register; sums in arrays of double would live in memory.
#if defined(__AVX512F__)
constexpr int kWideF64 = 8;
#elif defined(__AVX2__)
constexpr int kWideF64 = 4;
#else
constexpr int kWideF64 = 2;
#endif
typedef double WideF64 __attribute__((vector_size(kWideF64 * 8), aligned(8), may_alias));

FI_INLINE WideF64 fused(WideF64 a, WideF64 b, WideF64 c) {
#if defined(__AVX512F__)
  return (WideF64)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__FMA__)
  return (WideF64)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#else
  return a * b + c;
#endif
}

template <int kRows>
FI_INLINE void tile_f64_rows(const TileF64& t, int64_t row) {
  constexpr int kParts = kTileF64Cols / kWideF64;
  double edge[kRows][kTileF64Cols] = {};
  if (!t.first)
    for (int m = 0; m < kRows; ++m)
      for (int64_t j = 0; j < t.cols; ++j) edge[m][j] = t.y[(row + m) * t.y_m + j];
  WideF64 sum[kRows][kParts];
#pragma GCC unroll 8
  for (int m = 0; m < kRows; ++m)
#pragma GCC unroll 8
    for (int i = 0; i < kParts; ++i) sum[m][i] = *(const WideF64*)(edge[m] + i * kWideF64);
  const double* a = t.a + row * t.a_m;
  for (int64_t k = 0; k < t.depth; ++k) {
    const auto* b = (const WideF64*)(t.b + k * kTileF64Cols);
#pragma GCC unroll 8
    for (int m = 0; m < kRows; ++m) {
      const WideF64 x = a[m * t.a_m + k * t.a_k] - WideF64{};
#pragma GCC unroll 8
      for (int i = 0; i < kParts; ++i) sum[m][i] = fused(x, b[i], sum[m][i]);
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < kRows; ++m)
#pragma GCC unroll 8
    for (int i = 0; i < kParts; ++i) *(WideF64*)(edge[m] + i * kWideF64) = sum[m][i];
  for (int m = 0; m < kRows; ++m)
    for (int64_t j = 0; j < t.cols; ++j) t.y[(row + m) * t.y_m + j] = edge[m][j];
}

template <int kRows>
FI_INLINE void tile_f64_all(const TileF64& t) {
  int64_t row = 0;
  for (; row + kRows <= t.rows; row += kRows) tile_f64_rows<kRows>(t, row);
  for (; row < t.rows; ++row) tile_f64_rows<1>(t, row);
}

}  // namespace fi::FI_ISA
