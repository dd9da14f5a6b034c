// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm/generic.h"
#include "kernels/gemm/generic_bf16.h"
#include "kernels/gemm/generic_f64.h"
#include "kernels/gemm/generic_quantize.h"
#include "kernels/gemm/generic_rows.h"
#include "kernels/gemm/generic_u8s8.h"

namespace fi::FI_ISA {

void gemm_f32_6x16(const GemmTile& g) { gemm_columns<6, 2>(g, 0); }
void pack_gemm_f32_6x16(const float* b, int64_t stride_k, int64_t stride_n, int64_t k, int64_t cols, int64_t width,
                        float* out) {
  gemm_pack(b, stride_k, stride_n, k, cols, width, out);
}

void gemm_u8s8s32_4x16x2(const GemmU8S8Tile& g) { u8s8_columns<BestDot, 4, 2>(g, 0); }

void tile_f64_2(const TileF64& t) { tile_f64_all<2>(t); }

}  // namespace fi::FI_ISA

FI_GEMM_ROWS(gemm_f32_6x16, 2, 12, 6, 4, 4)
FI_BF16_VARIANT(gemm_bf16_4x16, WidenedDot, 4, 2)
