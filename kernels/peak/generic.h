// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "kernels/peak/peak.h"
#include "kernels/simd/simd.h"

namespace fi::FI_ISA {

// Zen and Core need latency 4–5 x 2 pipes = 8–10 chains in flight; 12 fit AVX2's 16 registers with the two constants.
constexpr int kChains = 12;

FI_INLINE Status peak_fma(const void* params, void* const* args, int part, int) {
  const int64_t rounds = static_cast<const PeakParams*>(params)->rounds;
  const VF m = set1(0.999f), a = set1(0.001f * static_cast<float>(part + 1));
  VF x[kChains];
#pragma GCC unroll 16
  for (int i = 0; i < kChains; ++i) x[i] = set1(static_cast<float>(i));
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) x[i] = fma(x[i], m, a);
  }
#pragma GCC unroll 16
  for (int i = 1; i < kChains; ++i) x[0] = x[0] + x[i];
  static_cast<float*>(args[0])[part * kPeakOutStride] = reduce_add(x[0]);
  return Status::ok;
}

FI_INLINE Status peak_read(const void* params, void* const* args, int part, int parts) {
  const auto& q = *static_cast<const PeakParams*>(params);
  const Range mine = part_of(q.floats, part, parts, 8 * VF::W);
  const float* p = static_cast<const float*>(args[0]);
  VF x[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) x[i] = zero();
  for (int64_t r = 0; r < q.rounds; ++r)
    for (int64_t at = mine.begin; at + 8 * VF::W <= mine.end; at += 8 * VF::W) {
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) x[i] = x[i] + load(p + at + i * VF::W);
    }
#pragma GCC unroll 8
  for (int i = 1; i < 8; ++i) x[0] = x[0] + x[i];
  static_cast<float*>(args[1])[part * kPeakOutStride] = reduce_add(x[0]);
  return Status::ok;
}

}  // namespace fi::FI_ISA

// A variant: its two steps and the flops of one round.
#define FI_PEAK_VARIANT(name)                                                      \
  namespace fi::FI_ISA {                                                           \
  Status name##_fma(const void* params, void* const* args, int part, int parts) {  \
    return peak_fma(params, args, part, parts);                                    \
  }                                                                                \
  Status name##_read(const void* params, void* const* args, int part, int parts) { \
    return peak_read(params, args, part, parts);                                   \
  }                                                                                \
  int64_t name##_flops() { return 2 * kChains * VF::W; }                           \
  }
