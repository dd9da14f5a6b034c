// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm/generic_u8s8.h"

namespace fi::FI_ISA {

void gemm_u8s8s32_6x64x4(const GemmU8S8Tile& g) { u8s8_columns<BestDot, 6, 4>(g, 0); }

}  // namespace fi::FI_ISA
