// SPDX-License-Identifier: Apache-2.0
// Plain loops over channels, which the compiler turns into vectors of the instruction set.
#pragma once
#include <cstring>

#include "kernels/depthwise/depthwise_bytes.h"
#include "kernels/simd/simd.h"

namespace fi::FI_ISA {

constexpr int64_t kByteChannels = 64;

// Rounds half to even by adding and taking off 1.5 * 2^23 after a clamp that keeps it exact.
FI_INLINE int32_t around_zero(float v, float lo, float hi) {
  v = hi < v ? hi : v;
  v = v > lo ? v : lo;
  return static_cast<int32_t>((v + 12582912.f) - 12582912.f);
}
FI_INLINE uint8_t requantised(const Requantize& q, int32_t sum, float scale, const uint8_t* residual) {
  float v = static_cast<float>(sum) * scale;
  if (residual) {
    if (q.inner)
      v = static_cast<float>(
              around_zero(v, static_cast<float>(q.c_lo - q.c_zero), static_cast<float>(q.c_hi - q.c_zero))) *
          q.c_factor;
    const int32_t r = q.signed_residual ? static_cast<int8_t>(*residual) : *residual;
    v = v + static_cast<float>(r - q.r_zero) * q.r_factor;
  }
  return static_cast<uint8_t>(around_zero(v, static_cast<float>(q.lo - q.zero), static_cast<float>(q.hi - q.zero)) +
                              q.zero);
}

template <class T>
FI_INLINE void depthwise_bytes_pixel(const DepthwiseBytes& p, void* const* args, int64_t pixel, int64_t image,
                                     const int64_t* o, const Taps* in, int64_t c0, int64_t n) {
  const Geometry& g = p.g;
  const auto* w = static_cast<const int16_t*>(args[1]);
  const int32_t zero = *static_cast<const int32_t*>(args[2]) - (p.signed_x ? 128 : 0);
  const auto* bias = static_cast<const int32_t*>(args[3]);
  int32_t acc[kByteChannels];
  for (int64_t i = 0; i < n; ++i) acc[i] = bias ? bias[c0 + i] : 0;
  for (int64_t kd = in[0].begin; kd < in[0].end; ++kd)
    for (int64_t kh = in[1].begin; kh < in[1].end; ++kh)
      for (int64_t kw = in[2].begin; kw < in[2].end; ++kw) {
        const int64_t k[3] = {kd, kh, kw};
        int64_t at = image;
        for (int s = 0; s < 3; ++s) at = at * g.in[s] + o[s] * g.stride[s] - g.pad[s] + k[s] * g.dilation[s];
        const T* x = static_cast<const T*>(args[0]) + at * p.channels + c0;
        const int16_t* wt = w + ((kd * g.kernel[1] + kh) * g.kernel[2] + kw) * p.channels + c0;
        for (int64_t i = 0; i < n; ++i) acc[i] += (static_cast<int32_t>(x[i]) - zero) * wt[i];
      }
  const int64_t to = pixel * p.channels + c0;
  if (p.output == QuantizedOutput::s32) {
    std::memcpy(static_cast<int32_t*>(args[5]) + to, acc, static_cast<size_t>(n) * 4);
    return;
  }
  const float* scale = static_cast<const float*>(args[4]) + c0;
  if (p.output == QuantizedOutput::f32) {
    auto* y = static_cast<float*>(args[5]) + to;
    for (int64_t i = 0; i < n; ++i) y[i] = static_cast<float>(acc[i]) * scale[i];
    return;
  }
  auto* y = static_cast<uint8_t*>(args[5]) + to;
  const uint8_t* residual = args[6] ? static_cast<const uint8_t*>(args[6]) + to : nullptr;
  if (!residual) {
    for (int64_t i = 0; i < n; ++i) y[i] = requantised(p.q, acc[i], scale[i], nullptr);
  } else {
    for (int64_t i = 0; i < n; ++i) y[i] = requantised(p.q, acc[i], scale[i], residual + i);
  }
}

template <class T>
FI_INLINE void depthwise_bytes_run(const DepthwiseBytes& p, void* const* args, int part, int parts) {
  const Geometry& g = p.g;
  const auto [begin, end] = part_of(p.batch * g.out_pixels(), part, parts);
  for (int64_t pixel = begin; pixel < end; ++pixel) {
    const int64_t o[3] = {pixel / g.out[2] / g.out[1] % g.out[0], pixel / g.out[2] % g.out[1], pixel % g.out[2]};
    const Taps in[3] = {inside(g, 0, o[0]), inside(g, 1, o[1]), inside(g, 2, o[2])};
    for (int64_t c = 0; c < p.channels; c += kByteChannels) {
      // The whole block has a constant count, for which the loops unroll without a remainder.
      if (p.channels - c >= kByteChannels)
        depthwise_bytes_pixel<T>(p, args, pixel, pixel / g.out_pixels(), o, in, c, kByteChannels);
      else
        depthwise_bytes_pixel<T>(p, args, pixel, pixel / g.out_pixels(), o, in, c, p.channels - c);
    }
  }
}

Status depthwise_bytes(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const DepthwiseBytes*>(params);
  if (p.signed_x)
    depthwise_bytes_run<int8_t>(p, args, part, parts);
  else
    depthwise_bytes_run<uint8_t>(p, args, part, parts);
  return Status::ok;
}

}  // namespace fi::FI_ISA
