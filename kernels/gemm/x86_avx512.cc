// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm/generic.h"
#include "kernels/gemm/generic_bf16.h"
#include "kernels/gemm/generic_f64.h"
#include "kernels/gemm/generic_quantize.h"
#include "kernels/gemm/generic_rows.h"
#include "kernels/gemm/generic_u8s8.h"

namespace fi::FI_ISA {

void gemm_f32_6x64(const GemmTile& g) { gemm_columns<6, 4>(g, 0); }
void pack_gemm_f32_6x64(const float* b, int64_t stride_k, int64_t stride_n, int64_t k, int64_t cols, int64_t width,
                        float* out) {
  gemm_pack(b, stride_k, stride_n, k, cols, width, out);
}

void gemm_u8s8s32_6x64x2(const GemmU8S8Tile& g) { u8s8_columns<BestDot, 6, 2>(g, 0); }

void tile_f64_4(const TileF64& t) { tile_f64_all<4>(t); }

}  // namespace fi::FI_ISA

FI_GEMM_ROWS(gemm_f32_6x64, 4, 16, 14, 8, 6)
FI_BF16_VARIANT(gemm_bf16_8x32, WidenedDot, 8, 2)
