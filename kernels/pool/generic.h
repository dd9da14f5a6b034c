// SPDX-License-Identifier: Apache-2.0
// Channels-last pooling: one output pixel, several vectors of channels at a time.
#pragma once
#include "kernels/pool/pool.h"
#include "kernels/simd/simd.h"

#define FI_UNROLL _Pragma("GCC unroll 16")

namespace fi::FI_ISA {

// Calls f(first input element of the tap's pixel) for the taps inside the image, in order.
template <class F>
FI_INLINE void pool_taps(const PoolStep& q, int64_t image, const int64_t* o, const Taps* in, F f) {
  const Geometry& g = q.g;
  for (int64_t kd = in[0].begin; kd < in[0].end; ++kd)
    for (int64_t kh = in[1].begin; kh < in[1].end; ++kh) {
      const int64_t id = o[0] * g.stride[0] - g.pad[0] + kd * g.dilation[0];
      const int64_t ih = o[1] * g.stride[1] - g.pad[1] + kh * g.dilation[1];
      int64_t iw = o[2] * g.stride[2] - g.pad[2] + in[2].begin * g.dilation[2];
      const int64_t row = ((image * g.in[0] + id) * g.in[1] + ih) * g.in[2];
      for (int64_t kw = in[2].begin; kw < in[2].end; ++kw, iw += g.dilation[2]) f((row + iw) * q.x_pixel);
    }
}

// Calls f(pixel, image, position, taps, taps that count) for this part's output pixels. Divisions are left to the ends
// of rows: a dozen per pixel took 1.8 ms for a 2x2 maximum of 256x256x32, which memory gives in .2.
template <class F>
FI_INLINE void pool_pixels(const PoolStep& q, int part, int parts, F f) {
  const Geometry& g = q.g;
  const auto [begin, end] = part_of(q.batch * g.out_pixels(), part, parts);
  // Output columns [first, last) see all of their taps.
  const int64_t reach = g.in[2] + g.pad[2] - (g.kernel[2] - 1) * g.dilation[2];
  const int64_t first = g.pad[2] > 0 ? (g.pad[2] + g.stride[2] - 1) / g.stride[2] : 0;
  const int64_t last = reach > 0 ? (reach + g.stride[2] - 1) / g.stride[2] : 0;
  for (int64_t pixel = begin; pixel < end;) {
    const int64_t row = pixel / g.out[2], stop = (row + 1) * g.out[2] < end ? (row + 1) * g.out[2] : end;
    int64_t o[3] = {row / g.out[1] % g.out[0], row % g.out[1], pixel - row * g.out[2]};
    const int64_t image = row / g.out[1] / g.out[0];
    Taps in[3] = {inside(g, 0, o[0]), inside(g, 1, o[1]), {}};
    const int64_t rows = pool_axis_count(g, 0, o[0], in[0], q.count_include_pad) *
                         pool_axis_count(g, 1, o[1], in[1], q.count_include_pad);
    for (; pixel < stop; ++pixel, ++o[2]) {
      const bool whole = o[2] >= first && o[2] < last;
      in[2] = whole ? Taps{0, g.kernel[2]} : inside(g, 2, o[2]);
      f(pixel, image, o, in, rows * (whole ? g.kernel[2] : pool_axis_count(g, 2, o[2], in[2], q.count_include_pad)));
    }
  }
}

struct PoolMax {
  static __attribute__((always_inline)) VF first() { return set1(-__builtin_inff()); }
  static __attribute__((always_inline)) VF join(VF a, VF x) { return max_nan(a, x); }
};
struct PoolSum {
  static __attribute__((always_inline)) VF first() { return zero(); }
  static __attribute__((always_inline)) VF join(VF a, VF x) { return a + x; }
};

FI_INLINE VF pool_load(const float* p, int n) { return n == VF::W ? load(p) : load(p, n); }
FI_INLINE void pool_store(float* p, VF v, int n) {
  if (n == VF::W)
    store(p, v);
  else
    store(p, v, n);
}

FI_INLINE VF pool_load(const uint16_t* p, int n) { return n == VF::W ? load_bf16(p) : load_bf16(p, n); }
FI_INLINE void pool_store(uint16_t* p, VF v, int n) {
  if (n == VF::W)
    store_bf16(p, v);
  else
    store_bf16(p, v, n);
}

// V vectors of channels from c on, the last of n lanes. T: float, or uint16_t for bfloat16.
template <class R, int V, class T>
FI_INLINE void pool_block(const PoolStep& q, const T* x, T* y, int64_t image, const int64_t* o, const Taps* in,
                          int64_t c, int n, VF divisor) {
  VF acc[V];
  FI_UNROLL for (int j = 0; j < V; ++j) acc[j] = R::first();
  pool_taps(q, image, o, in, [&](int64_t at) __attribute__((always_inline)) {
    FI_UNROLL for (int j = 0; j < V; ++j) acc[j] =
        R::join(acc[j], pool_load(x + at + c + j * VF::W, j == V - 1 ? n : VF::W));
  });
  FI_UNROLL for (int j = 0; j < V; ++j) pool_store(y + c + j * VF::W, acc[j] / divisor, j == V - 1 ? n : VF::W);
}

template <class T, class R, bool kAverage>
FI_INLINE Status pool_floats(const void* params, void* const* args, int part, int parts) {
  const auto& q = *static_cast<const PoolStep*>(params);
  const auto* x = static_cast<const T*>(args[0]);
  auto* y = static_cast<T*>(args[1]);
  pool_pixels(q, part, parts, [&](int64_t pixel, int64_t image, const int64_t* o, const Taps* in, int64_t count) {
    const VF divisor = set1(kAverage ? static_cast<float>(count) : 1.f);
    T* out = y + pixel * q.y_pixel;
    int64_t c = 0;
    for (; c + 4 * VF::W <= q.channels; c += 4 * VF::W) pool_block<R, 4>(q, x, out, image, o, in, c, VF::W, divisor);
    for (; c + 2 * VF::W <= q.channels; c += 2 * VF::W) pool_block<R, 2>(q, x, out, image, o, in, c, VF::W, divisor);
    for (; c < q.channels; c += VF::W) {
      const int64_t left = q.channels - c;
      pool_block<R, 1>(q, x, out, image, o, in, c, left < VF::W ? static_cast<int>(left) : VF::W, divisor);
    }
  });
  return Status::ok;
}

// Maxima of kBytes channels at a time; the last block overlaps the one before. Fewer than 16 channels: one by one.
template <class T, int kBytes>
struct MaxBlock {
  typedef T V __attribute__((vector_size(kBytes), aligned(1), may_alias));
  V v;
  FI_INLINE_MEMBER void start(T least) { v = V{} + least; }
  FI_INLINE_MEMBER void join(const T* p) {
    const V x = *reinterpret_cast<const V*>(p);
    v = v > x ? v : x;
  }
  FI_INLINE_MEMBER void store(T* p) const { *reinterpret_cast<V*>(p) = v; }
};
template <class T>
struct MaxBlock<T, 1> {
  T v;
  FI_INLINE_MEMBER void start(T least) { v = least; }
  FI_INLINE_MEMBER void join(const T* p) { v = v > *p ? v : *p; }
  FI_INLINE_MEMBER void store(T* p) const { *p = v; }
};

template <class T, T kLeast, int kBytes>
static void pool_max_blocks(const PoolStep& q, const T* x, T* y, int part, int parts) {
  pool_pixels(q, part, parts, [&](int64_t pixel, int64_t image, const int64_t* o, const Taps* in, int64_t) {
    for (int64_t c = 0; c < q.channels; c += kBytes) {
      if (c + kBytes > q.channels) c = q.channels - kBytes;
      MaxBlock<T, kBytes> m;
      m.start(kLeast);
      pool_taps(q, image, o, in, [&](int64_t at) __attribute__((always_inline)) { m.join(x + at + c); });
      m.store(y + pixel * q.y_pixel + c);
    }
  });
}

template <class T, T kLeast>
FI_INLINE Status pool_max_bytes(const void* params, void* const* args, int part, int parts) {
  const auto& q = *static_cast<const PoolStep*>(params);
  const auto* x = static_cast<const T*>(args[0]);
  auto* y = static_cast<T*>(args[1]);
  if (VF::W == 16 && q.channels >= 64)
    pool_max_blocks<T, kLeast, 64>(q, x, y, part, parts);
  else if (VF::W >= 8 && q.channels >= 32)
    pool_max_blocks<T, kLeast, 32>(q, x, y, part, parts);
  else if (q.channels >= 16)
    pool_max_blocks<T, kLeast, 16>(q, x, y, part, parts);
  else
    pool_max_blocks<T, kLeast, 1>(q, x, y, part, parts);
  return Status::ok;
}

// -- the whole image
// Sums are made of runs of 64 pixels, so that the error grows with n / 64 + 64 and not with n.
constexpr int64_t kPoolRun = 64;

template <class R, bool kAverage>
FI_INLINE Status pool_global_last(const void* params, void* const* args, int part, int parts) {
  const auto& q = *static_cast<const GlobalPoolStep*>(params);
  const auto* x = static_cast<const float*>(args[0]);
  auto* y = static_cast<float*>(args[1]);
  const VF divisor = set1(kAverage ? static_cast<float>(q.n) : 1.f);
  constexpr int V = 4;
  const int64_t blocks = (q.inner + V * VF::W - 1) / (V * VF::W);
  const auto [begin, end] = part_of(q.outer * blocks, part, parts);
  for (int64_t b = begin; b < end; ++b) {
    const float* from = x + b / blocks * q.n * q.inner;
    float* to = y + b / blocks * q.inner;
    const int64_t c = b % blocks * V * VF::W;
    int lanes[V];
    FI_UNROLL for (int j = 0; j < V; ++j) {
      const int64_t left = q.inner - c - j * VF::W;
      lanes[j] = left < 0 ? 0 : left < VF::W ? static_cast<int>(left) : VF::W;
    }
    VF total[V];
    FI_UNROLL for (int j = 0; j < V; ++j) total[j] = R::first();
    for (int64_t i0 = 0; i0 < q.n; i0 += kPoolRun) {
      VF acc[V];
      FI_UNROLL for (int j = 0; j < V; ++j) acc[j] = R::first();
      for (int64_t i = i0; i < q.n && i < i0 + kPoolRun; ++i) {
        FI_UNROLL for (int j = 0; j < V; ++j) acc[j] =
            R::join(acc[j], pool_load(from + i * q.inner + c + j * VF::W, lanes[j]));
      }
      FI_UNROLL for (int j = 0; j < V; ++j) total[j] = R::join(total[j], acc[j]);
    }
    FI_UNROLL for (int j = 0; j < V; ++j) if (lanes[j]) pool_store(to + c + j * VF::W, total[j] / divisor, lanes[j]);
  }
  return Status::ok;
}

template <class R, bool kAverage>
FI_INLINE Status pool_global_first(const void* params, void* const* args, int part, int parts) {
  const auto& q = *static_cast<const GlobalPoolStep*>(params);
  const auto* x = static_cast<const float*>(args[0]);
  auto* y = static_cast<float*>(args[1]);
  const auto [begin, end] = part_of(q.outer, part, parts);
  constexpr int V = 4;
  for (int64_t row = begin; row < end; ++row) {
    const float* from = x + row * q.n;
    VF acc[V];
    FI_UNROLL for (int j = 0; j < V; ++j) acc[j] = R::first();
    int64_t i = 0;
    for (; i + V * VF::W <= q.n; i += V * VF::W) {
      FI_UNROLL for (int j = 0; j < V; ++j) acc[j] = R::join(acc[j], load(from + i + j * VF::W));
    }
    for (; i + VF::W <= q.n; i += VF::W) acc[0] = R::join(acc[0], load(from + i));
    if (const int tail = static_cast<int>(q.n - i))
      acc[1] = R::join(acc[1], select(first_n(tail), load(from + i, tail), R::first()));
    const VF all = R::join(R::join(acc[0], acc[1]), R::join(acc[2], acc[3]));
    if constexpr (kAverage)
      y[row] = reduce_add(all) / static_cast<float>(q.n);
    else
      y[row] = any(is_nan(all)) ? __builtin_nanf("") : reduce_max(all);
  }
  return Status::ok;
}

#define FI_POOL(symbol, ...)                                                  \
  Status symbol(const void* params, void* const* args, int part, int parts) { \
    return __VA_ARGS__(params, args, part, parts);                            \
  }
FI_POOL(pool_max_f32, pool_floats<float, PoolMax, false>)
FI_POOL(pool_average_f32, pool_floats<float, PoolSum, true>)
FI_POOL(pool_max_bf16, pool_floats<uint16_t, PoolMax, false>)
FI_POOL(pool_average_bf16, pool_floats<uint16_t, PoolSum, true>)
FI_POOL(pool_max_u8, pool_max_bytes<uint8_t, 0>)
FI_POOL(pool_max_s8, pool_max_bytes<int8_t, -128>)
FI_POOL(pool_global_average_last_f32, pool_global_last<PoolSum, true>)
FI_POOL(pool_global_average_first_f32, pool_global_first<PoolSum, true>)
FI_POOL(pool_global_max_last_f32, pool_global_last<PoolMax, false>)
FI_POOL(pool_global_max_first_f32, pool_global_first<PoolMax, false>)

}  // namespace fi::FI_ISA
