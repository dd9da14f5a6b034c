// SPDX-License-Identifier: Apache-2.0
// The transforms over the vector type. With pairs ±p_i the rows of B^T for +p and -p share their even and odd halves:
//   L±(x) = x (x ± p) Π (x² - q²) = x² Q(x²) ± p x Q(x²),  Q over the other pairs,
// and the columns of A^T their sum and difference.
#pragma once
#include "kernels/gemm/activate.h"
#include "kernels/winograd/points.h"
#include "kernels/winograd/winograd.h"

#define FI_UNROLL _Pragma("GCC unroll 16")

namespace fi::FI_ISA {

// Coefficients of Π (y - p_k²) over all pairs but `skip` (skip = -1: all), lowest power of y first.
template <int M>
struct WinogradSquares {
  static constexpr int P = WinogradPoints<M>::pairs;
  double c[P + 1] = {};
  int degree = 0;
  constexpr explicit WinogradSquares(int skip) {
    c[0] = 1;
    for (int k = 0; k < P; ++k) {
      if (k == skip) continue;
      const double s = WinogradPoints<M>::p[k] * WinogradPoints<M>::p[k];
      ++degree;
      for (int i = degree; i >= 0; --i) c[i] = (i ? c[i - 1] : 0) - s * (i < degree ? c[i] : 0);
    }
  }
};

template <int M, int skip>
FI_INLINE VF winograd_even(const VF* x) {  // Σ c[i] x[2i]; the leading coefficient is 1
  constexpr WinogradSquares<M> q(skip);
  VF sum = x[2 * q.degree];
  FI_UNROLL for (int i = q.degree - 1; i >= 0; --i) sum = fma(set1(static_cast<float>(q.c[i])), x[2 * i], sum);
  return sum;
}

template <int M, int k>
FI_INLINE void winograd_pair_in(const VF* x, VF* y) {
  constexpr float p = static_cast<float>(WinogradPoints<M>::p[k]);
  const VF even = winograd_even<M, k>(x + 2), odd = winograd_even<M, k>(x + 1);
  y[1 + 2 * k] = fma(set1(p), odd, even);
  y[2 + 2 * k] = fnma(set1(p), odd, even);
}

// y = B^T x for one line of M + 2 values.
template <int M>
FI_INLINE void winograd_line_in(const VF* x, VF* y) {
  y[0] = winograd_even<M, -1>(x);
  winograd_pair_in<M, 0>(x, y);
  winograd_pair_in<M, 1>(x, y);
  if constexpr (WinogradPoints<M>::pairs > 2) winograd_pair_in<M, 2>(x, y);
  y[M + 1] = winograd_even<M, -1>(x + 1);
}

// y = A^T x: y[i] = Σ p^i x_p, the point ∞ only in the last.
template <int M>
FI_INLINE void winograd_line_out(const VF* x, VF* y) {
  constexpr int P = WinogradPoints<M>::pairs;
  VF sum[P], difference[P];
  FI_UNROLL for (int k = 0; k < P; ++k) {
    sum[k] = x[1 + 2 * k] + x[2 + 2 * k];
    difference[k] = x[1 + 2 * k] - x[2 + 2 * k];
  }
  double power[P];
  FI_UNROLL for (int k = 0; k < P; ++k) power[k] = 1;
  FI_UNROLL for (int i = 0; i < M; ++i) {
    const VF* terms = i % 2 ? difference : sum;
    VF v = i == 0       ? x[0] + terms[0]
           : i == M - 1 ? fma(set1(static_cast<float>(power[0])), terms[0], x[M + 1])
                        : set1(static_cast<float>(power[0])) * terms[0];
    FI_UNROLL for (int k = 1; k < P; ++k) v = fma(set1(static_cast<float>(power[k])), terms[k], v);
    y[i] = v;
    FI_UNROLL for (int k = 0; k < P; ++k) power[k] *= WinogradPoints<M>::p[k];
  }
}

template <bool whole>
FI_INLINE VF winograd_load(const float* p, int lanes) {
  return whole ? load(p) : load(p, lanes);
}

// One vector of channels. The loops over lines stay rolled: their addresses would fill all general registers.
template <int M, bool whole>
FI_INLINE void winograd_input_vector(const float* const* pixels, int64_t c, int lanes, float* v, int64_t plane) {
  constexpr int N = M + 2;
  VF t[N][N];  // t[j][i]: column j of the tile, transformed
  _Pragma("GCC unroll 1") for (int j = 0; j < N; ++j) {
    VF x[N];
    FI_UNROLL for (int i = 0; i < N; ++i) x[i] = winograd_load<whole>(pixels[i * N + j] + c, lanes);
    FI_UNROLL for (int i = 0; i < N; ++i) __builtin_prefetch(v + (j * N + i) * plane + c, 1, 3);
    winograd_line_in<M>(x, t[j]);
  }
  float* out = v + c;
  _Pragma("GCC unroll 1") for (int i = 0; i < N; ++i) {
    VF x[N], y[N];
    FI_UNROLL for (int j = 0; j < N; ++j) x[j] = t[j][i];
    winograd_line_in<M>(x, y);
    // Rows of V are padded beyond C, so whole vectors may be written.
    FI_UNROLL for (int j = 0; j < N; ++j) store(out + j * plane, y[j]);
    out += N * plane;
  }
}

template <int M>
static void winograd_input(const float* const* pixels, int64_t channels, float* v, int64_t plane) {
  int64_t c = 0;
  for (; c + VF::W <= channels; c += VF::W) winograd_input_vector<M, true>(pixels, c, VF::W, v, plane);
  if (c < channels) winograd_input_vector<M, false>(pixels, c, static_cast<int>(channels - c), v, plane);
}

// How the residual enters what winograd_output writes.
enum class WinogradResidual { none, before, after };

template <int M, bool whole, WinogradResidual R>
FI_INLINE void winograd_output_vector(const float* products, int64_t plane, int64_t c, int lanes, VF bias, VF lo, VF hi,
                                      float* const* rows, const float* const* residual) {
  constexpr int N = M + 2;
  VF t[N][M];
  _Pragma("GCC unroll 1") for (int j = 0; j < N; ++j) {
    const float* from = products + j * plane + c;
    VF x[N];
    FI_UNROLL for (int i = 0; i < N; ++i) x[i] = load(from + i * N * plane);
    winograd_line_out<M>(x, t[j]);
  }
  _Pragma("GCC unroll 1") for (int i = 0; i < M; ++i) {
    if (!rows[i * M]) break;  // rows and columns outside are the last ones
    VF x[N], y[M];
    FI_UNROLL for (int j = 0; j < N; ++j) x[j] = t[j][i];
    winograd_line_out<M>(x, y);
    FI_UNROLL for (int j = 0; j < M; ++j) {
      const int at = i * M + j;
      if (!rows[at]) break;
      VF out = y[j] + bias;
      if (R == WinogradResidual::before) out = out + winograd_load<whole>(residual[at] + c, lanes);
      out = clamp(out, lo, hi);
      if (R == WinogradResidual::after) out = out + winograd_load<whole>(residual[at] + c, lanes);
      if (whole)
        store(rows[at] + c, out);
      else
        store(rows[at] + c, out, lanes);
    }
  }
}

template <int M, WinogradResidual R>
static void winograd_output_as(const float* products, int64_t plane, int64_t channels, const float* bias, VF lo, VF hi,
                               float* const* rows, const float* const* residual) {
  int64_t c = 0;
  for (; c + VF::W <= channels; c += VF::W)
    winograd_output_vector<M, true, R>(products, plane, c, VF::W, bias ? load(bias + c) : zero(), lo, hi, rows,
                                       residual);
  if (const int lanes = static_cast<int>(channels - c))
    winograd_output_vector<M, false, R>(products, plane, c, lanes, bias ? load(bias + c, lanes) : zero(), lo, hi, rows,
                                        residual);
}

template <int M>
static void winograd_output(const float* products, int64_t plane, int64_t channels, const float* bias,
                            const Epilogue& e, float* const* rows, const float* const* residual) {
  // Every clamp as one: with ±∞ it passes all values, NaN included.
  const bool relu = e.activation == Activation::relu, clip = e.activation == Activation::clip;
  const VF lo = set1(relu ? 0.f : clip ? e.alpha : -__builtin_inff()), hi = set1(clip ? e.beta : __builtin_inff());
  const bool later = !is_clamp(e.activation);
  if (!residual || (later && e.residual_after))
    winograd_output_as<M, WinogradResidual::none>(products, plane, channels, bias, lo, hi, rows, residual);
  else if (e.residual_after)
    winograd_output_as<M, WinogradResidual::after>(products, plane, channels, bias, lo, hi, rows, residual);
  else
    winograd_output_as<M, WinogradResidual::before>(products, plane, channels, bias, lo, hi, rows, residual);
  if (!later) return;
  for (int at = 0; at < M * M; ++at)
    if (rows[at]) activate_row(e, rows[at], residual && e.residual_after ? residual[at] : nullptr, rows[at], channels);
}

}  // namespace fi::FI_ISA
