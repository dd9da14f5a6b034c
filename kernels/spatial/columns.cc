// SPDX-License-Identifier: Apache-2.0
#include "kernels/spatial/columns.h"

#include <algorithm>
#include <cmath>

namespace fi {

Status col2im_step(const void* params, void* const* args, int part, int parts) {
  const auto& q = *static_cast<const Col2Im*>(params);
  const Geometry& g = q.g;
  const int64_t blocks = g.out_pixels(), pixels = g.in_pixels();
  const auto [begin, end] = part_of(q.batch * q.channels, part, parts);
  for (int64_t plane = begin; plane < end; ++plane) {
    float* y = static_cast<float*>(args[1]) + plane * pixels;
    const float* x = static_cast<const float*>(args[0]) + plane * g.taps() * blocks;
    std::fill(y, y + pixels, 0.f);
    for (int64_t t = 0; t < g.taps(); ++t)
      for (int64_t o = 0; o < blocks; ++o, ++x) {
        const int64_t k[3] = {t / g.kernel[2] / g.kernel[1], t / g.kernel[2] % g.kernel[1], t % g.kernel[2]};
        const int64_t b[3] = {o / g.out[2] / g.out[1], o / g.out[2] % g.out[1], o % g.out[2]};
        int64_t at = 0;
        bool inside = true;
        for (int a = 0; a < 3; ++a) {
          const int64_t i = b[a] * g.stride[a] - g.pad[a] + k[a] * g.dilation[a];
          inside = inside && i >= 0 && i < g.in[a];
          at = at * g.in[a] + i;
        }
        if (inside) y[at] += *x;
      }
  }
  return Status::ok;
}

namespace {

constexpr int kLanes = 16;

// In kLanes independent chains, which the compiler keeps in vectors.
float dot(const float* a, const float* b, int64_t n) {
  float acc[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int j = 0; j < kLanes; ++j) acc[j] += a[i + j] * b[i + j];
  for (; i < n; ++i) acc[0] += a[i] * b[i];
  float sum = 0;
  for (float v : acc) sum += v;
  return sum;
}

// Where a moved tap looks in a plane: four neighbours, weight 0 outside.
struct Bilinear {
  int64_t at[4];
  float weight[4];

  Bilinear(const Geometry& g, float y, float x, float factor) {
    const float top = std::floor(y), left = std::floor(x);
    for (int k = 0; k < 4; ++k) {
      const float h = top + static_cast<float>(k / 2), w = left + static_cast<float>(k % 2);
      const bool inside = h >= 0 && h < static_cast<float>(g.in[1]) && w >= 0 && w < static_cast<float>(g.in[2]);
      at[k] = inside ? static_cast<int64_t>(h) * g.in[2] + static_cast<int64_t>(w) : 0;
      weight[k] = inside ? factor * (k / 2 ? y - top : 1 - (y - top)) * (k % 2 ? x - left : 1 - (x - left)) : 0;
    }
  }
  float operator()(const float* plane) const {
    return plane[at[0]] * weight[0] + plane[at[1]] * weight[1] + plane[at[2]] * weight[2] + plane[at[3]] * weight[3];
  }
};

// The moved inputs of one output pixel: columns[c * taps + t].
void gather(const DeformConv& q, const float* x, const float* offset, const float* mask, int64_t pixel,
            float* columns) {
  const Geometry& g = q.g;
  const int64_t taps = g.taps(), out = g.out_pixels(), per_group = q.channels / q.offset_groups;
  const int64_t oh = pixel / g.out[2], ow = pixel % g.out[2];
  for (int64_t og = 0; og < q.offset_groups; ++og)
    for (int64_t t = 0; t < taps; ++t) {
      const int64_t first = og * taps + t;
      const float dy = offset[(2 * first) * out + pixel], dx = offset[(2 * first + 1) * out + pixel];
      const auto y = static_cast<float>(oh * g.stride[1] - g.pad[1] + t / g.kernel[2] * g.dilation[1]) + dy;
      const auto w = static_cast<float>(ow * g.stride[2] - g.pad[2] + t % g.kernel[2] * g.dilation[2]) + dx;
      const Bilinear at(g, y, w, mask ? mask[first * out + pixel] : 1.f);
      for (int64_t c = og * per_group; c < (og + 1) * per_group; ++c) columns[c * taps + t] = at(x + c * g.in_pixels());
    }
}

}  // namespace

size_t deform_conv_scratch(const DeformConv& q, int parts) {
  return static_cast<size_t>((q.channels * q.g.taps() + 31) / 16 * 16 * parts) * sizeof(float);
}

Status deform_conv_step(const void* params, void* const* args, int part, int parts) {
  const auto& q = *static_cast<const DeformConv*>(params);
  const auto *x = static_cast<const float*>(args[0]), *w = static_cast<const float*>(args[1]);
  const auto *offset = static_cast<const float*>(args[2]), *bias = static_cast<const float*>(args[3]);
  const auto* mask = static_cast<const float*>(args[4]);
  float* columns = static_cast<float*>(args[6]) + deform_conv_scratch(q, 1) / sizeof(float) * static_cast<size_t>(part);
  const int64_t taps = q.g.taps(), out = q.g.out_pixels(), points = q.offset_groups * taps;
  const int64_t depth = q.channels / q.groups * taps, per_group = q.out_channels / q.groups;
  const auto [begin, end] = part_of(q.batch * out, part, parts);
  for (int64_t p = begin; p < end; ++p) {
    const int64_t n = p / out, pixel = p % out;
    gather(q, x + n * q.channels * q.g.in_pixels(), offset + n * points * 2 * out,
           mask ? mask + n * points * out : nullptr, pixel, columns);
    for (int64_t o = 0; o < q.out_channels; ++o)
      static_cast<float*>(args[5])[(n * q.out_channels + o) * out + pixel] =
          (bias ? bias[o] : 0) + dot(w + o * depth, columns + o / per_group * depth, depth);
  }
  return Status::ok;
}

Status local_norm_step(const void* params, void* const* args, int part, int parts) {
  const auto& q = *static_cast<const LocalNorm*>(params);
  constexpr int64_t kPixels = 256;
  const int64_t below = (q.size - 1) / 2, above = q.size - 1 - below, blocks = (q.pixels + kPixels - 1) / kPixels;
  const float factor = q.alpha / static_cast<float>(q.size);
  const auto [begin, end] = part_of(q.batch * blocks, part, parts);
  for (int64_t b = begin; b < end; ++b) {
    const int64_t first = b % blocks * kPixels, n = std::min(kPixels, q.pixels - first);
    const int64_t image = b / blocks * q.channels * q.pixels + first;
    const float* x = static_cast<const float*>(args[0]) + image;
    float* y = static_cast<float*>(args[1]) + image;
    for (int64_t c = 0; c < q.channels; ++c) {
      float sum[kPixels] = {};
      for (int64_t k = std::max<int64_t>(0, c - below); k <= std::min(q.channels - 1, c + above); ++k)
        for (int64_t i = 0; i < n; ++i) sum[i] += x[k * q.pixels + i] * x[k * q.pixels + i];
      const float* from = x + c * q.pixels;
      float* to = y + c * q.pixels;
      if (q.beta == 0.75f) {  // two square roots, which are vector instructions; pow is a call per element
        for (int64_t i = 0; i < n; ++i) {
          const float root = std::sqrt(q.bias + factor * sum[i]);
          to[i] = from[i] / (root * std::sqrt(root));
        }
      } else {
        for (int64_t i = 0; i < n; ++i) to[i] = from[i] / std::pow(q.bias + factor * sum[i], q.beta);
      }
    }
  }
  return Status::ok;
}

}  // namespace fi
