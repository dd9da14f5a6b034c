// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention/generic_bf16.h"

namespace fi::FI_ISA {

struct DotPairs {
  using A = VI;
  using B = VI;
  FI_INLINE VI split(VI pairs) { return pairs; }
  FI_INLINE VF add(VF sum, VI a, VI b) {
    return {_mm512_dpbf16_ps(sum.v, reinterpret_cast<__m512bh>(a.v), reinterpret_cast<__m512bh>(b.v))};
  }
  // One conversion leaves the evens in the lower half and the odds in the upper: one permutation makes pairs of them.
  FI_INLINE VI round(VF even, VF odd) {
    const __m512i order = _mm512_or_si512(lane_index().v, _mm512_slli_epi32((lane_index() + set1i(16)).v, 16));
    return {_mm512_permutexvar_epi16(order, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(odd.v, even.v)))};
  }
};

}  // namespace fi::FI_ISA

FI_ATTENTION_BF16_VARIANT(DotPairs)
