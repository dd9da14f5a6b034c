// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm/generic_bf16.h"

namespace fi::FI_ISA {

struct PairDot {
  using A2 = VI;
  using B2 = VI;
  FI_INLINE VI split_a(VI a) { return a; }
  FI_INLINE VI split_b(VI b) { return b; }
  FI_INLINE VF dot(VF sum, VI a, VI b) {
    return {_mm512_dpbf16_ps(sum.v, reinterpret_cast<__m512bh>(a.v), reinterpret_cast<__m512bh>(b.v))};
  }
};

}  // namespace fi::FI_ISA

FI_BF16_VARIANT(gemm_bf16_6x64, PairDot, 6, 4)
