// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "kernels/gemm/tile_f64.h"
#include "kernels/simd/simd.h"

namespace fi::FI_ISA {

#if defined(__FMA__)
FI_INLINE double fused(double a, double b, double c) { return __builtin_fma(a, b, c); }
#else
FI_INLINE double fused(double a, double b, double c) { return a * b + c; }
#endif

template <int kRows>
FI_INLINE void tile_f64_rows(const TileF64& t, int64_t row) {
  double sum[kRows][kTileF64Cols];
  for (int m = 0; m < kRows; ++m)
    for (int j = 0; j < kTileF64Cols; ++j) sum[m][j] = t.first || j >= t.cols ? 0.0 : t.y[(row + m) * t.y_m + j];
  const double* a = t.a + row * t.a_m;
  for (int64_t k = 0; k < t.depth; ++k) {
    const double* b = t.b + k * kTileF64Cols;
    for (int m = 0; m < kRows; ++m) {
      const double x = a[m * t.a_m + k * t.a_k];
      for (int j = 0; j < kTileF64Cols; ++j) sum[m][j] = fused(x, b[j], sum[m][j]);
    }
  }
  for (int m = 0; m < kRows; ++m)
    for (int64_t j = 0; j < t.cols; ++j) t.y[(row + m) * t.y_m + j] = sum[m][j];
}

template <int kRows>
FI_INLINE void tile_f64_all(const TileF64& t) {
  int64_t row = 0;
  for (; row + kRows <= t.rows; row += kRows) tile_f64_rows<kRows>(t, row);
  for (; row < t.rows; ++row) tile_f64_rows<1>(t, row);
}

}  // namespace fi::FI_ISA
