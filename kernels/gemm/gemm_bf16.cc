// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm/gemm_bf16.h"

#include <algorithm>

namespace fi {

#define FI_KERNEL(isa, symbol, mr)                       \
  namespace isa {                                        \
  void symbol(const GemmBF16Tile&);                      \
  void round_##symbol(const float*, uint16_t*, int64_t); \
  }
#include "kernels/gemm/kernels_bf16.inc"
#undef FI_KERNEL

const GemmBF16& gemm_bf16(Isa isa) {
  static const GemmBF16 rows[] = {
#define FI_KERNEL(isa, symbol, mr) {#symbol "_" #isa, Isa::isa, mr, &isa::symbol, &isa::round_##symbol},
#include "kernels/gemm/kernels_bf16.inc"
#undef FI_KERNEL
  };
  const GemmBF16* row = rows;
  while (row->isa > isa) ++row;  // the last row is the baseline, which every machine has
  return *row;
}

namespace {

uint16_t rounded(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  if (x != x) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
float widened(uint16_t h) {
  const uint32_t bits = static_cast<uint32_t>(h) << 16;
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

}  // namespace

void gemm_bf16_pack(const BF16Panels& p, const float* b, int64_t stride_t, int64_t stride_k, int64_t stride_n,
                    uint16_t* packed, const int64_t* order) {
  std::fill_n(packed, p.elements(), uint16_t{0});
  for (int64_t i = 0; i < p.count(); ++i) {
    const int64_t width = p.width(i), cols = p.cols(i);
    for (int64_t t = 0; t < p.taps; ++t)
      for (int64_t k = 0; k < p.k; ++k) {
        const float* row = b + (order ? order[t] : t) * stride_t + k * stride_k + i * kBF16Panel * stride_n;
        uint16_t* to = packed + p.offset(i) + (t * p.pairs() + k / 2) * width * 2 + k % 2;
        for (int64_t n = 0; n < cols; ++n) to[n * 2] = rounded(row[n * stride_n]);
      }
  }
}

void gemm_bf16_unpack(const BF16Panels& p, const uint16_t* packed, float* b, int64_t stride_t, int64_t stride_k,
                      int64_t stride_n, const int64_t* order) {
  for (int64_t n = 0; n < p.n; ++n) {
    const int64_t i = n / kBF16Panel, width = p.width(i);
    const uint16_t* column = packed + p.offset(i) + n % kBF16Panel * 2;
    for (int64_t t = 0; t < p.taps; ++t)
      for (int64_t k = 0; k < p.k; ++k)
        b[(order ? order[t] : t) * stride_t + k * stride_k + n * stride_n] =
            widened(column[(t * p.pairs() + k / 2) * width * 2 + k % 2]);
  }
}

}  // namespace fi
