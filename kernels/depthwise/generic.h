// SPDX-License-Identifier: Apache-2.0
// Two forms. Fixed width: P neighbouring output pixels of a row, one vector of channels at a time, input columns shared
// in registers between the pixels. Any window: one pixel, eight vectors of channels at a time.
#pragma once
#include "kernels/depthwise/depthwise.h"
#include "kernels/gemm/activate.h"

#define FI_UNROLL _Pragma("GCC unroll 32")

namespace fi::FI_ISA {

// T: float, or uint16_t for bfloat16, of X, the residual and Y.
template <class T>
struct DepthwiseArgs {
  const T* x;
  const float *w, *bias;
  const T* residual;
  T* y;
};
template <class T>
FI_INLINE DepthwiseArgs<T> depthwise_args(void* const* args) {
  return {static_cast<const T*>(args[0]), static_cast<const float*>(args[1]), static_cast<const float*>(args[2]),
          static_cast<const T*>(args[3]), static_cast<T*>(args[4])};
}

FI_INLINE VF load_some(const float* p, int n) { return n == VF::W ? load(p) : load(p, n); }
FI_INLINE void store_some(float* p, VF v, int n) {
  if (n == VF::W)
    store(p, v);
  else
    store(p, v, n);
}

FI_INLINE VF load_some(const uint16_t* p, int n) { return n == VF::W ? load_bf16(p) : load_bf16(p, n); }
FI_INLINE void store_some(uint16_t* p, VF v, int n) {
  if (n == VF::W)
    store_bf16(p, v);
  else
    store_bf16(p, v, n);
}

// Residual before the activation, and a clamp, in registers; the other activations run over the finished pixels in L1.
template <class T>
FI_INLINE VF depthwise_finish(const Epilogue& e, VF acc, const T* residual, int n) {
  if (residual && !e.residual_after) acc = acc + load_some(residual, n);
  if (e.activation == Activation::relu) acc = max(zero(), acc);
  if (e.activation == Activation::clip) acc = clamp(acc, set1(e.alpha), set1(e.beta));
  if constexpr (sizeof(T) == 2) {  // rounded once only, so before it is stored
    if (!is_clamp(e.activation)) {
      float lanes[VF::W];
      store(lanes, acc);
      activate_row(e, lanes, nullptr, lanes, VF::W);
      acc = load(lanes);
      if (residual && e.residual_after) acc = acc + load_some(residual, n);
    }
  }
  if (residual && e.residual_after && is_clamp(e.activation)) acc = acc + load_some(residual, n);
  return acc;
}
FI_INLINE void depthwise_activate(const Epilogue& e, const float* residual, float* y, int64_t n) {
  if (!is_clamp(e.activation)) activate_row(e, y, e.residual_after ? residual : nullptr, y, n);
}

FI_INLINE void depthwise_activate(const Epilogue&, const uint16_t*, uint16_t*, int64_t) {}  // done in registers

constexpr int kDepthwiseRows = 7;
constexpr int64_t kDepthwiseL1 = 8192;  // floats

// n channels from c on of P pixels. columns[r][j]: column j of the input under kernel row r, or a line of zeros.
template <int KW, int SW, int P, class T>
FI_INLINE void depthwise_vector(const DepthwiseF32& p, const DepthwiseArgs<T>& a,
                                const T* const (*columns)[(P - 1) * SW + KW], const int64_t* taps, int rows, T* y,
                                const T* residual, int64_t c, int n) {
  constexpr int kColumns = (P - 1) * SW + KW;
  const int64_t channels = p.channels;
  VF acc[P];
  FI_UNROLL for (int i = 0; i < P; ++i) acc[i] = zero();
  for (int r = 0; r < rows; ++r) {
    const float* w = a.w + taps[r] * channels + c;
    VF x[kColumns];
    FI_UNROLL for (int j = 0; j < kColumns; ++j) x[j] = load_some(columns[r][j] + c, n);
    FI_UNROLL for (int k = 0; k < KW; ++k) {
      const VF wk = load_some(w + k * channels, n);
      FI_UNROLL for (int i = 0; i < P; ++i) acc[i] = fma(x[i * SW + k], wk, acc[i]);
    }
  }
  const VF bias = a.bias ? load_some(a.bias + c, n) : zero();
  FI_UNROLL for (int i = 0; i < P; ++i) {
    const T* r = residual ? residual + i * channels + c : nullptr;
    store_some(y + i * channels + c, depthwise_finish(p.epilogue, acc[i] + bias, r, n), n);
  }
}

// P pixels from `pixel` on.
template <int KW, int SW, int P, class T>
static void depthwise_tile(const DepthwiseF32& p, const DepthwiseArgs<T>& a,
                           const T* const (*columns)[(P - 1) * SW + KW], const int64_t* taps, int rows, int64_t pixel,
                           int64_t c, int64_t end) {
  T* y = a.y + pixel * p.channels;
  const T* residual = a.residual ? a.residual + pixel * p.channels : nullptr;
  const int64_t first = c;
  for (; c + VF::W <= end; c += VF::W) depthwise_vector<KW, SW, P>(p, a, columns, taps, rows, y, residual, c, VF::W);
  if (c < end) depthwise_vector<KW, SW, P>(p, a, columns, taps, rows, y, residual, c, static_cast<int>(end - c));
  if (is_clamp(p.epilogue.activation) || sizeof(T) == 2) return;
  for (int i = 0; i < P; ++i) {
    const int64_t at = i * p.channels + first;
    depthwise_activate(p.epilogue, residual ? residual + at : nullptr, y + at, end - first);
  }
}

// An output row: which kernel rows see the image, and where.
template <class T>
struct DepthwiseRow {
  const T* line[kDepthwiseRows];  // first pixel of the input row
  int64_t taps[kDepthwiseRows];   // the kernel row's first tap
  int rows = 0;
  int64_t first_pixel;  // of the output row
};
template <class T>
FI_INLINE DepthwiseRow<T> depthwise_row(const DepthwiseF32& p, const T* x, int64_t row) {
  const Geometry& g = p.g;
  const int64_t oh = row % g.out[1], od = row / g.out[1] % g.out[0], n = row / g.out[1] / g.out[0];
  const Taps in_d = inside(g, 0, od), in_h = inside(g, 1, oh);
  DepthwiseRow<T> out;
  for (int64_t kd = in_d.begin; kd < in_d.end; ++kd)
    for (int64_t kh = in_h.begin; kh < in_h.end; ++kh) {
      const int64_t id = od * g.stride[0] - g.pad[0] + kd * g.dilation[0];
      const int64_t ih = oh * g.stride[1] - g.pad[1] + kh * g.dilation[1];
      out.line[out.rows] = x + ((n * g.in[0] + id) * g.in[1] + ih) * g.in[2] * p.channels;
      out.taps[out.rows++] = (kd * g.kernel[1] + kh) * g.kernel[2];
    }
  out.first_pixel = row * g.out[2];
  return out;
}

// As many tiles of P pixels as fit into [ow, out); returns the first pixel that is left.
template <int KW, int SW, int P, class T>
FI_INLINE int64_t depthwise_tiles(const DepthwiseF32& p, const DepthwiseArgs<T>& a, const DepthwiseRow<T>& row,
                                  const T* zeros, int64_t ow, int64_t c0, int64_t c1) {
  constexpr int kColumns = (P - 1) * SW + KW;
  const Geometry& g = p.g;
  for (; ow + P <= g.out[2]; ow += P) {
    const T* columns[kDepthwiseRows][kColumns];
    const int64_t iw = ow * SW - g.pad[2];
    for (int r = 0; r < row.rows; ++r)
      for (int j = 0; j < kColumns; ++j)
        columns[r][j] = iw + j >= 0 && iw + j < g.in[2] ? row.line[r] + (iw + j) * p.channels : zeros;
    depthwise_tile<KW, SW, P>(p, a, columns, row.taps, row.rows, row.first_pixel + ow, c0, c1);
  }
  return ow;
}

// Channels whose input rows of one output row, and its output, stay in L1 until the next output row: each input line
// comes from L2 once and not once per kernel row. 16.4 against 18.7 us at 14x14x576; but with less than four lines per
// pixel it loses a quarter, so wide rows take all channels.
FI_INLINE int64_t depthwise_block(const DepthwiseF32& p) {
  const int64_t pixels = (p.g.kernel[0] * p.g.kernel[1] + p.g.stride[1]) * p.g.in[2] + p.g.out[2];
  const int64_t floats = kDepthwiseL1 / (pixels > 0 ? pixels : 1) / VF::W * VF::W;
  return floats < 64 ? p.channels : floats;
}

template <int KW, int SW, int P, class T = float>
FI_INLINE Status depthwise_fixed(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const DepthwiseF32*>(params);
  const DepthwiseArgs<T> a = depthwise_args<T>(args);
  const auto [begin, end] = part_of(p.batch * p.g.out[0] * p.g.out[1], part, parts);
  T* zeros = reinterpret_cast<T*>(static_cast<float*>(args[5]) + depthwise_scratch_floats(p) * part);
  std::memset(zeros, 0, static_cast<size_t>(p.channels) * sizeof(T));
  const int64_t block = depthwise_block(p);
  for (int64_t c0 = 0; c0 < p.channels; c0 += block) {
    const int64_t c1 = c0 + block < p.channels ? c0 + block : p.channels;
    for (int64_t r = begin; r < end; ++r) {
      const DepthwiseRow<T> row = depthwise_row(p, a.x, r);
      int64_t ow = depthwise_tiles<KW, SW, P>(p, a, row, zeros, 0, c0, c1);
      if constexpr (P > 4) ow = depthwise_tiles<KW, SW, 4>(p, a, row, zeros, ow, c0, c1);
      ow = depthwise_tiles<KW, SW, 2>(p, a, row, zeros, ow, c0, c1);
      depthwise_tiles<KW, SW, 1>(p, a, row, zeros, ow, c0, c1);
    }
  }
  return Status::ok;
}

// V vectors of channels from c on, the last of n lanes, of one output pixel.
template <int V, class T>
FI_INLINE void depthwise_pixel(const DepthwiseF32& p, const DepthwiseArgs<T>& a, int64_t image, const int64_t* o,
                               const Taps* in, int64_t pixel, int64_t c, int n) {
  const Geometry& g = p.g;
  VF acc[V];
  FI_UNROLL for (int j = 0; j < V; ++j) acc[j] = zero();
  for (int64_t kd = in[0].begin; kd < in[0].end; ++kd)
    for (int64_t kh = in[1].begin; kh < in[1].end; ++kh)
      for (int64_t kw = in[2].begin; kw < in[2].end; ++kw) {
        const int64_t k[3] = {kd, kh, kw};
        int64_t at = image;
        for (int s = 0; s < 3; ++s) at = at * g.in[s] + o[s] * g.stride[s] - g.pad[s] + k[s] * g.dilation[s];
        const T* x = a.x + at * p.channels + c;
        const float* w = a.w + ((kd * g.kernel[1] + kh) * g.kernel[2] + kw) * p.channels + c;
        FI_UNROLL for (int j = 0; j < V; ++j) {
          const int lanes = j == V - 1 ? n : VF::W;
          acc[j] = fma(load_some(x + j * VF::W, lanes), load_some(w + j * VF::W, lanes), acc[j]);
        }
      }
  FI_UNROLL for (int j = 0; j < V; ++j) {
    const int lanes = j == V - 1 ? n : VF::W;
    const int64_t at = c + j * VF::W;
    if (a.bias) acc[j] = acc[j] + load_some(a.bias + at, lanes);
    const T* r = a.residual ? a.residual + pixel * p.channels + at : nullptr;
    store_some(a.y + pixel * p.channels + at, depthwise_finish(p.epilogue, acc[j], r, lanes), lanes);
  }
}

template <class T = float>
FI_INLINE Status depthwise_any(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const DepthwiseF32*>(params);
  const DepthwiseArgs<T> a = depthwise_args<T>(args);
  const Geometry& g = p.g;
  const auto [begin, end] = part_of(p.batch * g.out_pixels(), part, parts);
  constexpr int kVectors = 4;
  for (int64_t pixel = begin; pixel < end; ++pixel) {
    const int64_t o[3] = {pixel / g.out[2] / g.out[1] % g.out[0], pixel / g.out[2] % g.out[1], pixel % g.out[2]};
    const int64_t image = pixel / g.out_pixels();
    const Taps in[3] = {inside(g, 0, o[0]), inside(g, 1, o[1]), inside(g, 2, o[2])};
    int64_t c = 0;
    for (; c + kVectors * VF::W <= p.channels; c += kVectors * VF::W)
      depthwise_pixel<kVectors>(p, a, image, o, in, pixel, c, VF::W);
    for (; c < p.channels; c += VF::W)
      depthwise_pixel<1>(p, a, image, o, in, pixel, c,
                         p.channels - c < VF::W ? static_cast<int>(p.channels - c) : VF::W);
    depthwise_activate(p.epilogue, a.residual ? a.residual + pixel * p.channels : nullptr, a.y + pixel * p.channels,
                       p.channels);
  }
  return Status::ok;
}

}  // namespace fi::FI_ISA

// P: output pixels at a time.
#define FI_DEPTHWISE(KW, SW, P)                                                                  \
  Status depthwise_f32_##KW##s##SW(const void* params, void* const* args, int part, int parts) { \
    return depthwise_fixed<KW, SW, P>(params, args, part, parts);                                \
  }
#define FI_DEPTHWISE_ANY                                                                 \
  Status depthwise_f32_any(const void* params, void* const* args, int part, int parts) { \
    return depthwise_any<float>(params, args, part, parts);                              \
  }
#define FI_DEPTHWISE_BF16(KW, SW, P)                                                              \
  Status depthwise_bf16_##KW##s##SW(const void* params, void* const* args, int part, int parts) { \
    return depthwise_fixed<KW, SW, P, uint16_t>(params, args, part, parts);                       \
  }
#define FI_DEPTHWISE_BF16_ANY                                                             \
  Status depthwise_bf16_any(const void* params, void* const* args, int part, int parts) { \
    return depthwise_any<uint16_t>(params, args, part, parts);                            \
  }
