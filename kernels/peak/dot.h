// SPDX-License-Identifier: Apache-2.0
// The peak loop over an instruction that sums products of narrow types.
#pragma once
#include "kernels/peak/generic.h"

namespace fi::FI_ISA {

template <class Dot>
FI_INLINE Status peak_dot(const void* params, void* const* args, int part) {
  const int64_t rounds = static_cast<const PeakParams*>(params)->rounds;
  typename Dot::Sum x[kChains];
#pragma GCC unroll 16
  for (int i = 0; i < kChains; ++i) x[i] = Dot::start(i + part);
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) {
      x[i] = Dot::step(x[i]);
      asm volatile("" : "+v"(x[i]));  // sums of constants: the loop would be folded
    }
  }
  float sum = 0;
#pragma GCC unroll 16
  for (int i = 0; i < kChains; ++i) sum += Dot::value(x[i]);
  static_cast<float*>(args[0])[part * kPeakOutStride] = sum;
  return Status::ok;
}

}  // namespace fi::FI_ISA

#define FI_PEAK_DOT(name, Dot)                                              \
  namespace fi::FI_ISA {                                                    \
  Status name##_fma(const void* params, void* const* args, int part, int) { \
    return peak_dot<Dot>(params, args, part);                               \
  }                                                                         \
  int64_t name##_flops() { return kChains * Dot::flops; }                   \
  }
