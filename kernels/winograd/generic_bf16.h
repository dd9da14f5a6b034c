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
FI_INLINE void winograd2_vector_in(const void* const* pixels, int64_t c, int lanes, uint16_t* v, int64_t plane) {
  VF t[4][4];  // t[j][i]: column j of the tile, transformed
  FI_UNROLL for (int j = 0; j < 4; ++j) {
    VF x[4];
    FI_UNROLL for (int i = 0; i < 4; ++i) x[i] = winograd2_load<kBF16>(pixels[i * 4 + j], c, lanes);
    winograd2_line_in(x, t[j]);
  }
  FI_UNROLL for (int i = 0; i < 4; ++i) {
    const VF x[4] = {t[0][i], t[1][i], t[2][i], t[3][i]};
    VF y[4];
    winograd2_line_in(x, y);
    FI_UNROLL for (int j = 0; j < 4; ++j) store_bf16(v + (i * 4 + j) * plane + c, y[j]);
  }
}

template <bool kBF16>
FI_INLINE void winograd2_input(const void* const* pixels, int64_t channels, uint16_t* v, int64_t plane) {
  int64_t c = 0;
  for (; c + VF::W <= channels; c += VF::W) winograd2_vector_in<kBF16>(pixels, c, VF::W, v, plane);
  if (c < channels) winograd2_vector_in<kBF16>(pixels, c, static_cast<int>(channels - c), v, plane);
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

// What does not change from vector to vector.
struct Winograd2Out {
  const float *products, *bias;
  int64_t plane;
  const Epilogue& e;
  void* const* rows;
  const void* const* residual;
  bool residual_bf16;
};

// Channels [c, c + lanes). A^T: rows (1 1 1 0), (0 1 -1 1). kWhole: all four pixels are inside.
template <bool kBF16, bool kWhole>
FI_INLINE void winograd2_vector_out(const Winograd2Out& o, int64_t c, int lanes) {
  const Epilogue& e = o.e;
  VF top[4], low[4], y[4];
  FI_UNROLL for (int j = 0; j < 4; ++j) {
    VF x[4];
    FI_UNROLL for (int i = 0; i < 4; ++i) x[i] = load(o.products + (i * 4 + j) * o.plane + c);
    const VF sum = x[1] + x[2], difference = x[1] - x[2];
    top[j] = x[0] + sum;
    low[j] = difference + x[3];
  }
  const VF b = o.bias ? winograd2_load<false>(o.bias, c, lanes) : zero();
  const VF top_sum = top[1] + top[2], low_sum = low[1] + low[2];
  y[0] = top[0] + top_sum + b;
  y[1] = top[1] - top[2] + top[3] + b;
  y[2] = low[0] + low_sum + b;
  y[3] = low[1] - low[2] + low[3] + b;
  if (o.residual && !e.residual_after) {
    FI_UNROLL for (int k = 0; k < 4; ++k) if (kWhole || o.rows[k]) y[k] =
        y[k] + winograd2_residual(o.residual[k], o.residual_bf16, c, lanes);
  }
  if (e.activation == Activation::relu) {
    FI_UNROLL for (int k = 0; k < 4; ++k) y[k] = max(zero(), y[k]);
  } else if (e.activation == Activation::clip) {
    FI_UNROLL for (int k = 0; k < 4; ++k) y[k] = clamp(y[k], set1(e.alpha), set1(e.beta));
  } else if (e.activation != Activation::none) {
    winograd2_activate(y, e);
  }
  FI_UNROLL for (int k = 0; k < 4; ++k) {
    if (!kWhole && !o.rows[k]) continue;
    if (o.residual && e.residual_after) y[k] = y[k] + winograd2_residual(o.residual[k], o.residual_bf16, c, lanes);
    winograd2_store(o.rows[k], kBF16, c, y[k], lanes);
  }
}

template <bool kBF16, bool kWhole>
FI_INLINE void winograd2_output(const Winograd2Out& o, int64_t channels) {
  int64_t c = 0;
  for (; c + VF::W <= channels; c += VF::W) winograd2_vector_out<kBF16, kWhole>(o, c, VF::W);
  if (c < channels) winograd2_vector_out<kBF16, kWhole>(o, c, static_cast<int>(channels - c));
}

}  // namespace fi::FI_ISA

// A variant: both transforms.
#define FI_WINOGRAD_BF16_VARIANT                                                                                 \
  namespace fi::FI_ISA {                                                                                         \
  void winograd_bf16_input(const void* const* pixels, bool bf16, int64_t channels, uint16_t* v, int64_t plane) { \
    if (bf16)                                                                                                    \
      winograd2_input<true>(pixels, channels, v, plane);                                                         \
    else                                                                                                         \
      winograd2_input<false>(pixels, channels, v, plane);                                                        \
  }                                                                                                              \
  void winograd_bf16_output(const float* products, int64_t plane, int64_t channels, const float* bias,           \
                            const Epilogue& e, void* const* rows, bool y_bf16, const void* const* residual,      \
                            bool residual_bf16) {                                                                \
    const Winograd2Out o{products, bias, plane, e, rows, residual, residual_bf16};                               \
    const bool whole = rows[0] && rows[1] && rows[2] && rows[3];                                                 \
    if (whole)                                                                                                   \
      y_bf16 ? winograd2_output<true, true>(o, channels) : winograd2_output<false, true>(o, channels);           \
    else                                                                                                         \
      y_bf16 ? winograd2_output<true, false>(o, channels) : winograd2_output<false, false>(o, channels);         \
  }                                                                                                              \
  }
