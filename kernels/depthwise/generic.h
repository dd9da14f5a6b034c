// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "kernels/depthwise/depthwise.h"
#include "kernels/gemm/activate.h"

#define FI_UNROLL _Pragma("GCC unroll 16")

namespace fi::FI_ISA {

template <int CV>
FI_INLINE VF depthwise_load(const float* p, int j, int lanes) {
  return CV == 1 && lanes < VF::W ? load(p, lanes) : load(p + j * VF::W);
}

// P output pixels from column `ox` on, CV vectors of channels at c; all taps of the P pixels are inside the row if
// `interior`. KW = 0: kernel width known at run time.
template <int KW, int S, int P, int CV>
FI_INLINE void depthwise_block(const DepthwiseStep& q, const DepthwiseRow& d, int64_t ox, int64_t c, int lanes) {
  const Geometry& g = q.window;
  const int64_t kw = KW ? KW : g.kernel[2], stride = S ? S : g.stride[2], dilation = KW ? 1 : g.dilation[2];
  const int64_t left = ox * stride - g.pad[2], C = q.channels;
  VF acc[P][CV];
  FI_UNROLL for (int p = 0; p < P; ++p) {
    FI_UNROLL for (int j = 0; j < CV; ++j) acc[p][j] = zero();
  }
  for (int64_t r = 0; r < d.row_taps; ++r) {
    if (!d.rows[r]) continue;
    const float* x = d.rows[r] + left * C + c;
    const float* w = d.weights + r * kw * C + c;
    if constexpr (KW > 0) {
      VF wv[KW][CV];
      FI_UNROLL for (int k = 0; k < KW; ++k) {
        FI_UNROLL for (int j = 0; j < CV; ++j) wv[k][j] = depthwise_load<CV>(w + k * C, j, lanes);
      }
      // Each input column is loaded once and goes to all outputs that see it; per output, taps still ascend.
      FI_UNROLL for (int i = 0; i < (P - 1) * S + KW; ++i) {
        VF xv[CV];
        FI_UNROLL for (int j = 0; j < CV; ++j) xv[j] = depthwise_load<CV>(x + i * C, j, lanes);
        FI_UNROLL for (int p = 0; p < P; ++p) {
          const int k = i - p * S;
          if (k >= 0 && k < KW) {
            FI_UNROLL for (int j = 0; j < CV; ++j) acc[p][j] = fma(xv[j], wv[k][j], acc[p][j]);
          }
        }
      }
    } else {
      for (int64_t k = 0; k < kw; ++k) {
        const int64_t at = left + k * dilation;
        if (at < 0 || at >= g.in[2]) continue;
        FI_UNROLL for (int j = 0; j < CV; ++j)
          acc[0][j] = fma(depthwise_load<CV>(x + k * dilation * C, j, lanes), depthwise_load<CV>(w + k * C, j, lanes), acc[0][j]);
      }
    }
  }
  const Epilogue& e = q.epilogue;
  const VF alpha = set1(e.alpha), beta = set1(e.beta);
  const bool simple = is_clamp(e.activation);
  FI_UNROLL for (int j = 0; j < CV; ++j) {
    const VF b = d.bias ? depthwise_load<CV>(d.bias + c, j, lanes) : zero();
    FI_UNROLL for (int p = 0; p < P; ++p) {
      const int64_t at = (ox + p) * C + c;
      VF v = acc[p][j] + b;
      if (d.residual && !e.residual_after) v = v + depthwise_load<CV>(d.residual + at, j, lanes);
      if (e.activation == Activation::relu) v = max(zero(), v);
      if (e.activation == Activation::clip) v = clamp(v, alpha, beta);
      if (d.residual && e.residual_after && simple) v = v + depthwise_load<CV>(d.residual + at, j, lanes);
      if (CV == 1 && lanes < VF::W)
        store(d.y + at, v, lanes);
      else
        store(d.y + at + j * VF::W, v);
    }
  }
}

// The output columns whose window lies inside the row: [begin, end).
FI_INLINE Taps depthwise_interior(const Geometry& g) {
  int64_t begin = (g.pad[2] + g.stride[2] - 1) / g.stride[2];
  const int64_t room = g.in[2] + g.pad[2] - (g.kernel[2] - 1) * g.dilation[2] - 1;
  int64_t end = room < 0 ? 0 : room / g.stride[2] + 1;
  if (g.pad[2] < 0) begin = 0;
  if (end > g.out[2]) end = g.out[2];
  if (begin > end) begin = end;
  return {begin, end};
}

template <int KW, int S, int CV>
FI_INLINE void depthwise_columns(const DepthwiseStep& q, const DepthwiseRow& d, int64_t c, int lanes) {
  const Geometry& g = q.window;
  int64_t ox = 0;
  if constexpr (KW > 0) {
    const Taps inner = depthwise_interior(g);
    for (; ox < inner.begin; ++ox) depthwise_block<0, 0, 1, CV>(q, d, ox, c, lanes);
    for (; ox + 4 <= inner.end; ox += 4) depthwise_block<KW, S, 4, CV>(q, d, ox, c, lanes);
    for (; ox < inner.end; ++ox) depthwise_block<KW, S, 1, CV>(q, d, ox, c, lanes);
  }
  for (; ox < g.out[2]; ++ox) depthwise_block<0, 0, 1, CV>(q, d, ox, c, lanes);
}

template <int KW, int S>
FI_INLINE void depthwise_channels(const DepthwiseStep& q, const DepthwiseRow& d) {
  int64_t c = 0;
  for (; c + 2 * VF::W <= q.channels; c += 2 * VF::W) depthwise_columns<KW, S, 2>(q, d, c, VF::W);
  for (; c < q.channels; c += VF::W) {
    const int64_t left = q.channels - c;
    depthwise_columns<KW, S, 1>(q, d, c, left < VF::W ? static_cast<int>(left) : VF::W);
  }
}

FI_INLINE void depthwise_row(const DepthwiseStep& q, const DepthwiseRow& d) {
  const Geometry& g = q.window;
  const int64_t kw = g.kernel[2], s = g.stride[2];
  if (g.dilation[2] == 1 && kw == 3 && s == 1) depthwise_channels<3, 1>(q, d);
  else if (g.dilation[2] == 1 && kw == 3 && s == 2) depthwise_channels<3, 2>(q, d);
  else if (g.dilation[2] == 1 && kw == 5 && s == 1) depthwise_channels<5, 1>(q, d);
  else if (g.dilation[2] == 1 && kw == 5 && s == 2) depthwise_channels<5, 2>(q, d);
  else if (g.dilation[2] == 1 && kw == 7 && s == 1) depthwise_channels<7, 1>(q, d);
  else depthwise_channels<0, 0>(q, d);
  if (!is_clamp(q.epilogue.activation))
    activate_row(q.epilogue, d.y, q.epilogue.residual_after ? d.residual : nullptr, d.y, g.out[2] * q.channels);
}

}  // namespace fi::FI_ISA
