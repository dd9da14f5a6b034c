// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm/generic.h"
#include "kernels/gemm/generic_bf16.h"
#include "kernels/gemm/generic_nbits.h"
#include "kernels/gemm/generic_u8s8.h"

namespace fi::FI_ISA {

void gemm_f32_6x16(const GemmTile& g) { gemm_columns<6, 2>(g, 0); }
void pack_gemm_f32_6x16(const float* b, int64_t stride_k, int64_t stride_n, int64_t k, int64_t cols, int64_t width,
                        float* out) {
  gemm_pack(b, stride_k, stride_n, k, cols, width, out);
}

// vpmaddwd on the even and the odd bytes: exact, where vpmaddubsw would saturate sums of two products.
struct MaddDot {
  struct A4 {
    __m256i even, odd;
  };
  using B4 = A4;
  FI_INLINE A4 split_a(VI a) { return {_mm256_and_si256(a.v, _mm256_set1_epi16(255)), _mm256_srli_epi16(a.v, 8)}; }
  FI_INLINE B4 split_b(VI b) { return {_mm256_srai_epi16(_mm256_slli_epi16(b.v, 8), 8), _mm256_srai_epi16(b.v, 8)}; }
  FI_INLINE VI dot(VI sum, const A4& a, const B4& b) {
    const __m256i pairs = _mm256_add_epi32(_mm256_madd_epi16(a.even, b.even), _mm256_madd_epi16(a.odd, b.odd));
    return {_mm256_add_epi32(sum.v, pairs)};
  }
};
void gemm_u8s8s32_4x16x2(const GemmU8S8Tile& g) { u8s8_columns<MaddDot, 4, 2>(g, 0); }

void dequantize_nbits_chunk(const NBitsChunk& c, float* out) { dequantize_chunk(c, out); }

}  // namespace fi::FI_ISA

FI_BF16_VARIANT(gemm_bf16_4x16, WidenedDot, 4, 2)
