// SPDX-License-Identifier: Apache-2.0
#include "kernels/peak/dot.h"

namespace fi::FI_ISA {
struct ByteDot {
  using Sum = __m512i;
  static constexpr int64_t flops = 128;
  FI_INLINE Sum start(int i) { return _mm512_set1_epi32(i); }
  FI_INLINE Sum step(Sum x) {
    const __m512i ones = _mm512_set1_epi8(1);
    return _mm512_dpbusd_epi32(x, ones, ones);
  }
  FI_INLINE float value(Sum x) { return static_cast<float>(_mm512_reduce_add_epi32(x)); }
};
}  // namespace fi::FI_ISA

FI_PEAK_DOT(peak_u8s8x64, ByteDot)
