// SPDX-License-Identifier: Apache-2.0
#include "kernels/peak/dot.h"

namespace fi::FI_ISA {
struct Bf16Dot {
  using Sum = __m512;
  static constexpr int64_t flops = 64;
  FI_INLINE Sum start(int i) { return _mm512_set1_ps(static_cast<float>(i)); }
  FI_INLINE Sum step(Sum x) {
    const __m512bh ones = (__m512bh)_mm512_set1_epi32(0x3f803f80);
    return _mm512_dpbf16_ps(x, ones, ones);
  }
  FI_INLINE float value(Sum x) { return _mm512_reduce_add_ps(x); }
};
}  // namespace fi::FI_ISA

FI_PEAK_DOT(peak_bf16x32, Bf16Dot)
