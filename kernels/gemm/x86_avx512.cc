// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm/generic.h"

namespace fi::FI_ISA {

void gemm_f32_6x64(const GemmTile& g) { gemm_columns<6, 4>(g, 0); }
void pack_gemm_f32_6x64(const float* b, int64_t stride_k, int64_t stride_n, int64_t k, int64_t cols, int64_t width,
                        float* out) {
  gemm_pack(b, stride_k, stride_n, k, cols, width, out);
}

}  // namespace fi::FI_ISA
