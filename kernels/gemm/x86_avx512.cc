// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm/generic.h"
#include "kernels/gemm/generic_bf16.h"
#include "kernels/gemm/generic_nbits.h"
#include "kernels/gemm/generic_u8s8.h"

namespace fi::FI_ISA {

void gemm_f32_6x64(const GemmTile& g) { gemm_columns<6, 4>(g, 0); }
void pack_gemm_f32_6x64(const float* b, int64_t stride_k, int64_t stride_n, int64_t k, int64_t cols, int64_t width,
                        float* out) {
  gemm_pack(b, stride_k, stride_n, k, cols, width, out);
}

// vpmaddwd on the even and the odd bytes: exact, where vpmaddubsw would saturate sums of two products.
struct MaddDot {
  struct A4 {
    __m512i even, odd;
  };
  using B4 = A4;
  FI_INLINE A4 split_a(VI a) { return {_mm512_and_si512(a.v, _mm512_set1_epi16(255)), _mm512_srli_epi16(a.v, 8)}; }
  FI_INLINE B4 split_b(VI b) { return {_mm512_srai_epi16(_mm512_slli_epi16(b.v, 8), 8), _mm512_srai_epi16(b.v, 8)}; }
  FI_INLINE VI dot(VI sum, const A4& a, const B4& b) {
    const __m512i pairs = _mm512_add_epi32(_mm512_madd_epi16(a.even, b.even), _mm512_madd_epi16(a.odd, b.odd));
    return {_mm512_add_epi32(sum.v, pairs)};
  }
};
void gemm_u8s8s32_6x64x2(const GemmU8S8Tile& g) { u8s8_columns<MaddDot, 6, 2>(g, 0); }

void dequantize_nbits_chunk(const NBitsChunk& c, float* out) { dequantize_chunk(c, out); }

}  // namespace fi::FI_ISA

FI_BF16_VARIANT(gemm_bf16_8x32, WidenedDot, 8, 2)
