// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "kernels/attention/rotary.h"
#include "kernels/simd/simd.h"

namespace fi::FI_ISA {

static void rotate_halves(const float* x, const float* c, const float* s, float* y, int64_t half) {
  for (int64_t i = 0; i < half; i += VF::W) {
    const int n = half - i < VF::W ? static_cast<int>(half - i) : VF::W;
    const VF cos = load(c + i, n), sin = load(s + i, n), x1 = load(x + i, n), x2 = load(x + half + i, n);
    store(y + i, cos * x1 - sin * x2, n);
    store(y + half + i, sin * x1 + cos * x2, n);
  }
}

static void rotate_pairs(const float* x, const float* c, const float* s, float* y, int64_t half) {
  for (int64_t i = 0; i < half; ++i) {
    const float x1 = x[2 * i], x2 = x[2 * i + 1];
    y[2 * i] = c[i] * x1 - s[i] * x2;
    y[2 * i + 1] = s[i] * x1 + c[i] * x2;
  }
}

Status rotary_f32(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const RotaryStep*>(params);
  const auto *x = static_cast<const float*>(args[0]), *cos = static_cast<const float*>(args[2]);
  const auto* sin = static_cast<const float*>(args[3]);
  const auto* positions = static_cast<const int64_t*>(args[1]);
  auto* y = static_cast<float*>(args[4]);
  const int64_t half = p.rotated / 2;
  const Range range = part_of(p.batch * p.sequence, part, parts);
  for (int64_t t = range.begin; t < range.end; ++t) {
    const int64_t b = t / p.sequence, s = t % p.sequence;
    int64_t at = t;
    if (p.positions == RotaryPositions::per_token) at = positions[t];
    if (p.positions == RotaryPositions::from_first) {
      if (positions[0] < 0 || positions[0] >= p.limit) return bad_index(positions[0], 0, p.limit);
      at = positions[0] + s;
    }
    if (at < 0 || at >= p.limit) return bad_index(at, 0, p.limit);
    for (int64_t h = 0; h < p.heads; ++h) {
      const float* from = x + b * p.x.b + h * p.x.h + s * p.x.s;
      float* to = y + b * p.y.b + h * p.y.h + s * p.y.s;
      if (p.interleaved)
        rotate_pairs(from, cos + at * half, sin + at * half, to, half);
      else
        rotate_halves(from, cos + at * half, sin + at * half, to, half);
      std::memcpy(to + p.rotated, from + p.rotated, static_cast<size_t>(p.size - p.rotated) * sizeof(float));
    }
  }
  return Status::ok;
}

}  // namespace fi::FI_ISA
