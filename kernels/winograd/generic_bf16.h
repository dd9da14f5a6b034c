// SPDX-License-Identifier: Apache-2.0
// The transforms of F(2x2, 3x3) over the vector type. Contract: kernels/winograd/winograd_bf16.h.
#pragma once
#include "kernels/gemm/activate.h"
#include "kernels/winograd/winograd_bf16.h"

#ifndef FI_UNROLL
#define FI_UNROLL _Pragma("GCC unroll 16")
#endif

namespace fi::FI_ISA {

// y = B^T x, rows (1 0 -1 0), (0 1 1 0), (0 -1 1 0), (0 -1 0 1).
FI_INLINE void winograd2_line_in(const VF* x, VF* y) {
  y[0] = x[0] - x[2];
  y[1] = x[1] + x[2];
  y[2] = x[2] - x[1];
  y[3] = x[3] - x[1];
}

template <bool kBF16>
FI_INLINE VF winograd2_load(const void* p, int64_t at, int lanes) {
  if constexpr (kBF16) {
    const uint16_t* x = static_cast<const uint16_t*>(p) + at;
    return lanes == VF::W ? load_bf16(x) : load_bf16(x, lanes);
  }
  const float* x = static_cast<const float*>(p) + at;
  return lanes == VF::W ? load(x) : load(x, lanes);
}

template <bool kBF16>
FI_INLINE void winograd2_input(const void* const* pixels, int64_t channels, uint16_t* v, int64_t plane) {
  for (int64_t c = 0; c < channels; c += VF::W) {
    const int lanes = channels - c < VF::W ? static_cast<int>(channels - c) : VF::W;
    VF t[4][4];  // t[j][i]: column j of the tile, transformed
    FI_UNROLL for (int j = 0; j < 4; ++j) {
      VF x[4];
      FI_UNROLL for (int i = 0; i < 4; ++i) {
        const void* pixel = pixels[i * 4 + j];
        x[i] = pixel ? winograd2_load<kBF16>(pixel, c, lanes) : zero();
      }
      winograd2_line_in(x, t[j]);
    }
    FI_UNROLL for (int i = 0; i < 4; ++i) {
      const VF x[4] = {t[0][i], t[1][i], t[2][i], t[3][i]};
      VF y[4];
      winograd2_line_in(x, y);
      FI_UNROLL for (int j = 0; j < 4; ++j) store_bf16(v + (i * 4 + j) * plane + c, y[j]);
    }
  }
}

FI_INLINE void winograd2_store(void* p, bool bf16, int64_t at, VF x, int lanes) {
  if (bf16) {
    uint16_t* y = static_cast<uint16_t*>(p) + at;
    lanes == VF::W ? store_bf16(y, x) : store_bf16(y, x, lanes);
  } else {
    float* y = static_cast<float*>(p) + at;
    lanes == VF::W ? store(y, x) : store(y, x, lanes);
  }
}
FI_INLINE VF winograd2_residual(const void* p, bool bf16, int64_t at, int lanes) {
  return bf16 ? winograd2_load<true>(p, at, lanes) : winograd2_load<false>(p, at, lanes);
}

// Longer activations: the four vectors go through a buffer, so that their code exists once.
FI_INLINE void winograd2_activate(VF* y, const Epilogue& e) {
  float rows[4 * VF::W];
  FI_UNROLL for (int k = 0; k < 4; ++k) store(rows + k * VF::W, y[k]);
  activate_row(e, rows, nullptr, rows, 4 * VF::W);
  FI_UNROLL for (int k = 0; k < 4; ++k) y[k] = load(rows + k * VF::W);
}

// A^T: rows (1 1 1 0), (0 1 -1 1).
static void winograd2_output(const float* products, int64_t plane, int64_t channels, const float* bias,
                             const Epilogue& e, void* const* rows, bool y_bf16, const void* const* residual,
                             bool residual_bf16) {
  const VF alpha = set1(e.alpha), beta = set1(e.beta);
  const bool relu = e.activation == Activation::relu, clip = e.activation == Activation::clip;
  const bool longer = !is_clamp(e.activation);
  for (int64_t c = 0; c < channels; c += VF::W) {
    const int lanes = channels - c < VF::W ? static_cast<int>(channels - c) : VF::W;
    VF top[4], low[4], y[4];
    FI_UNROLL for (int j = 0; j < 4; ++j) {
      VF x[4];
      FI_UNROLL for (int i = 0; i < 4; ++i) x[i] = load(products + (i * 4 + j) * plane + c);
      top[j] = x[0] + x[1] + x[2];
      low[j] = x[1] - x[2] + x[3];
    }
    const VF b = bias ? winograd2_load<false>(bias, c, lanes) : zero();
    y[0] = top[0] + top[1] + top[2] + b;
    y[1] = top[1] - top[2] + top[3] + b;
    y[2] = low[0] + low[1] + low[2] + b;
    y[3] = low[1] - low[2] + low[3] + b;
    FI_UNROLL for (int k = 0; k < 4; ++k) {
      if (residual && residual[k] && !e.residual_after)
        y[k] = y[k] + winograd2_residual(residual[k], residual_bf16, c, lanes);
      if (relu) y[k] = max(zero(), y[k]);
      if (clip) y[k] = clamp(y[k], alpha, beta);
    }
    if (longer) winograd2_activate(y, e);
    FI_UNROLL for (int k = 0; k < 4; ++k) {
      if (!rows[k]) continue;
      if (residual && e.residual_after) y[k] = y[k] + winograd2_residual(residual[k], residual_bf16, c, lanes);
      winograd2_store(rows[k], y_bf16, c, y[k], lanes);
    }
  }
}

}  // namespace fi::FI_ISA

// A variant: both transforms.
#define FI_WINOGRAD_BF16_VARIANT                                                                                   \
  namespace fi::FI_ISA {                                                                                           \
  void winograd_bf16_input(const void* const* pixels, bool bf16, int64_t channels, uint16_t* v, int64_t plane) {   \
    bf16 ? winograd2_input<true>(pixels, channels, v, plane) : winograd2_input<false>(pixels, channels, v, plane); \
  }                                                                                                                \
  void winograd_bf16_output(const float* products, int64_t plane, int64_t channels, const float* bias,             \
                            const Epilogue& e, void* const* rows, bool y_bf16, const void* const* residual,        \
                            bool residual_bf16) {                                                                  \
    winograd2_output(products, plane, channels, bias, e, rows, y_bf16, residual, residual_bf16);                   \
  }                                                                                                                \
  }
