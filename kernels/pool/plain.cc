// SPDX-License-Identifier: Apache-2.0
// Pooling in plain C++ for every layout and type, with the indices of maxima.
#include <cmath>
#include <limits>

#include "kernels/pool/pool.h"

namespace fi {
namespace {

// One output element.
template <class T>
struct Window {
  const PoolStep& q;
  const T* x;  // the channel's first element
  int64_t pixel_stride;
  const int64_t* o;
  Taps in[3];

  template <class F>
  void each(F f) const {
    const Geometry& g = q.g;
    for (int64_t kd = in[0].begin; kd < in[0].end; ++kd)
      for (int64_t kh = in[1].begin; kh < in[1].end; ++kh)
        for (int64_t kw = in[2].begin; kw < in[2].end; ++kw) {
          const int64_t k[3] = {kd, kh, kw};
          int64_t i[3];
          for (int a = 0; a < 3; ++a) i[a] = o[a] * g.stride[a] - g.pad[a] + k[a] * g.dilation[a];
          f(x[((i[0] * g.in[1] + i[1]) * g.in[2] + i[2]) * pixel_stride], i);
        }
  }

  T max(int64_t* index) const {
    T best =
        std::numeric_limits<T>::has_infinity ? -std::numeric_limits<T>::infinity() : std::numeric_limits<T>::lowest();
    *index = -1;
    each([&](T v, const int64_t* i) {
      if (*index >= 0 && !(v > best) && !(v != v && best == best)) return;
      best = v;
      const Geometry& g = q.g;
      *index = q.column_major ? i[0] + g.in[0] * (i[1] + g.in[1] * i[2]) : (i[0] * g.in[1] + i[1]) * g.in[2] + i[2];
    });
    return best;
  }
  T average() const {
    T sum = 0;
    each([&](T v, const int64_t*) { sum += v; });
    return sum / static_cast<T>(pool_count(q.g, o, in, q.count_include_pad));
  }
  T lp() const {
    double sum = 0;
    const auto p = static_cast<double>(q.p);
    each([&](T v, const int64_t*) { sum += std::pow(std::abs(static_cast<double>(v)), p); });
    return static_cast<T>(std::pow(sum, 1 / p));
  }
};

template <class T>
Status run(const void* params, void* const* args, int part, int parts) {
  const auto& q = *static_cast<const PoolStep*>(params);
  const Geometry& g = q.g;
  auto* y = static_cast<T*>(args[1]);
  auto* indices = static_cast<int64_t*>(args[2]);
  const int64_t pixels = g.out_pixels(), planes = q.batch * q.channels;
  const auto [begin, end] = part_of(planes * pixels, part, parts);
  for (int64_t e = begin; e < end; ++e) {
    const int64_t plane = e / pixels, pixel = e % pixels, n = plane / q.channels, c = plane % q.channels;
    const int64_t o[3] = {pixel / g.out[2] / g.out[1], pixel / g.out[2] % g.out[1], pixel % g.out[2]};
    const T* x =
        static_cast<const T*>(args[0]) + (q.channels_last ? n * g.in_pixels() * q.channels + c : plane * g.in_pixels());
    const Window<T> w{
        q, x, q.channels_last ? q.channels : 1, o, {inside(g, 0, o[0]), inside(g, 1, o[1]), inside(g, 2, o[2])}};
    const int64_t at = q.channels_last ? (n * pixels + pixel) * q.channels + c : e;
    int64_t index = 0;
    if constexpr (std::numeric_limits<T>::has_infinity) {
      y[at] = q.kind == PoolKind::max ? w.max(&index) : q.kind == PoolKind::average ? w.average() : w.lp();
    } else {
      y[at] = w.max(&index);
    }
    if (indices) indices[at] = plane * g.in_pixels() + index;
  }
  return Status::ok;
}

template <class T>
Status run_global(const void* params, void* const* args, int part, int parts) {
  const auto& q = *static_cast<const GlobalPoolStep*>(params);
  const auto [begin, end] = part_of(q.outer * q.inner, part, parts);
  for (int64_t e = begin; e < end; ++e) {
    const T* x = static_cast<const T*>(args[0]) + e / q.inner * q.n * q.inner + e % q.inner;
    T best = q.kind == PoolKind::max ? -std::numeric_limits<T>::infinity() : 0;
    double sum = 0;
    for (int64_t i = 0; i < q.n; ++i) {
      const T v = x[i * q.inner];
      if (q.kind == PoolKind::max) best = best > v || best != best ? best : v;
      if (q.kind == PoolKind::average) sum += v;
      if (q.kind == PoolKind::lp) sum += std::pow(std::abs(static_cast<double>(v)), static_cast<double>(q.p));
    }
    if (q.kind == PoolKind::average) best = static_cast<T>(sum / static_cast<double>(q.n));
    if (q.kind == PoolKind::lp) best = static_cast<T>(std::pow(sum, 1 / static_cast<double>(q.p)));
    static_cast<T*>(args[1])[e] = best;
  }
  return Status::ok;
}

}  // namespace

PoolKernel plain_pool(const PoolStep& q, DType type) {
  if (type == DType::f32) return {"pool_f32", run<float>};
  if (type == DType::f64) return {"pool_f64", run<double>};
  if (type == DType::u8 && q.kind == PoolKind::max) return {"pool_u8", run<uint8_t>};
  if (type == DType::s8 && q.kind == PoolKind::max) return {"pool_s8", run<int8_t>};
  return {};
}

PoolKernel plain_global_pool(DType type) {
  if (type == DType::f32) return {"pool_global_f32", run_global<float>};
  if (type == DType::f64) return {"pool_global_f64", run_global<double>};
  return {};
}

}  // namespace fi
