// SPDX-License-Identifier: Apache-2.0
#include "kernels/pool/quantized.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace fi {
namespace {

template <class T>
void average(const QuantizedAverage& q, void* const* args, int64_t begin, int64_t end) {
  const Geometry& g = q.g;
  const int64_t zx = args[2] ? *static_cast<const T*>(args[2]) : 0;
  const float zy = args[4] ? *static_cast<const T*>(args[4]) : 0;
  const float scale = *static_cast<const float*>(args[1]) / *static_cast<const float*>(args[3]);
  constexpr float lo = std::numeric_limits<T>::lowest(), hi = std::numeric_limits<T>::max();
  const int64_t pixels = g.out_pixels();
  for (int64_t e = begin; e < end; ++e) {
    const int64_t plane = e / pixels, pixel = e % pixels, n = plane / q.channels, c = plane % q.channels;
    const int64_t o[3] = {pixel / g.out[2] / g.out[1], pixel / g.out[2] % g.out[1], pixel % g.out[2]};
    const Taps in[3] = {inside(g, 0, o[0]), inside(g, 1, o[1]), inside(g, 2, o[2])};
    const int64_t stride = q.channels_last ? q.channels : 1;
    const T* x =
        static_cast<const T*>(args[0]) + (q.channels_last ? n * g.in_pixels() * q.channels + c : plane * g.in_pixels());
    int64_t sum = 0;
    for (int64_t kd = in[0].begin; kd < in[0].end; ++kd)
      for (int64_t kh = in[1].begin; kh < in[1].end; ++kh)
        for (int64_t kw = in[2].begin; kw < in[2].end; ++kw) {
          const int64_t k[3] = {kd, kh, kw};
          int64_t at = 0;
          for (int s = 0; s < 3; ++s) at = at * g.in[s] + o[s] * g.stride[s] - g.pad[s] + k[s] * g.dilation[s];
          sum += x[at * stride] - zx;
        }
    const int64_t count = std::max<int64_t>(1, pool_count(g, o, in, q.count_include_pad));
    const float v = std::nearbyint(static_cast<float>(sum) / static_cast<float>(count) * scale) + zy;
    const int64_t at = q.channels_last ? (n * pixels + pixel) * q.channels + c : e;
    static_cast<T*>(args[5])[at] = static_cast<T>(v > lo ? std::min(v, hi) : lo);
  }
}

}  // namespace

Status quantized_average_step(const void* params, void* const* args, int part, int parts) {
  const auto& q = *static_cast<const QuantizedAverage*>(params);
  const auto [begin, end] = part_of(q.batch * q.channels * q.g.out_pixels(), part, parts);
  if (q.is_signed)
    average<int8_t>(q, args, begin, end);
  else
    average<uint8_t>(q, args, begin, end);
  return Status::ok;
}

}  // namespace fi
