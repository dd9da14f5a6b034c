// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm/generic_u8s8.h"

namespace fi::FI_ISA {

struct VnniDot {
  using A4 = VI;
  using B4 = VI;
  FI_INLINE VI split_a(VI a) { return a; }
  FI_INLINE VI split_b(VI b) { return b; }
  FI_INLINE VI dot(VI sum, VI a, VI b) { return {_mm512_dpbusd_epi32(sum.v, a.v, b.v)}; }
};
void gemm_u8s8s32_6x64x4(const GemmU8S8Tile& g) { u8s8_columns<VnniDot, 6, 4>(g, 0); }

}  // namespace fi::FI_ISA
