// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm/gemm_u8s8.h"

#include <cstring>

namespace fi {

#define FI_KERNEL(isa, symbol, mr, nr) \
  namespace isa {                      \
  void symbol(const GemmU8S8Tile&);    \
  }
#include "kernels/gemm/kernels_u8s8.inc"
#undef FI_KERNEL

const GemmU8S8& gemm_u8s8(Isa isa) {
  static const GemmU8S8 rows[] = {
#define FI_KERNEL(isa, symbol, mr, nr) {#symbol "_" #isa, Isa::isa, mr, nr, &isa::symbol},
#include "kernels/gemm/kernels_u8s8.inc"
#undef FI_KERNEL
  };
  const GemmU8S8* row = rows;
  while (row->isa > isa) ++row;  // the last row is the baseline, which every machine has
  return *row;
}

void gemm_u8s8_pack(const U8S8Panels& p, const void* b, bool flip_b, int64_t stride_t, int64_t stride_k,
                    int64_t stride_n, void* packed, int64_t begin, int64_t end) {
  const auto* bytes = static_cast<const uint8_t*>(b);
  const uint8_t flip = flip_b ? 0x80 : 0;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t width = panel_width(p, i), cols = panel_cols(p, i), groups = groups_of_4(p.k);
    auto* out = static_cast<uint8_t*>(packed) + panel_offset(p, i);
    auto* sums = static_cast<int32_t*>(packed) + i * p.nr;
    std::memset(out, 0, static_cast<size_t>(p.taps * groups * width * 4));
    std::memset(sums, 0, static_cast<size_t>(width) * 4);
    for (int64_t t = 0; t < p.taps; ++t)
      for (int64_t k = 0; k < p.k; ++k) {
        const uint8_t* row = bytes + t * stride_t + k * stride_k + i * p.nr * stride_n;
        uint8_t* to = out + ((t * groups + k / 4) * width) * 4 + k % 4;
        for (int64_t n = 0; n < cols; ++n) {
          const uint8_t v = row[n * stride_n] ^ flip;
          to[n * 4] = v;
          sums[n] += static_cast<int8_t>(v);
        }
      }
  }
}

void gemm_u8s8_unpack(const U8S8Panels& p, const void* packed, bool flip_b, int64_t stride_t, int64_t stride_k,
                      int64_t stride_n, void* b) {
  auto* bytes = static_cast<uint8_t*>(b);
  for (int64_t n = 0; n < p.n; ++n) {
    const int64_t i = n / p.nr, width = panel_width(p, i);
    const auto* from = static_cast<const uint8_t*>(packed) + panel_offset(p, i) + n % p.nr * 4;
    for (int64_t t = 0; t < p.taps; ++t)
      for (int64_t k = 0; k < p.k; ++k)
        bytes[t * stride_t + k * stride_k + n * stride_n] =
            from[(t * groups_of_4(p.k) + k / 4) * width * 4 + k % 4] ^ (flip_b ? 0x80 : 0);
  }
}

int32_t sum_bytes(const uint8_t* a, int64_t k, bool flip) {
  uint32_t sum = 0;
  const uint8_t mask = flip ? 0x80 : 0;
  for (int64_t i = 0; i < k; ++i) sum += a[i] ^ mask;
  return static_cast<int32_t>(sum);
}

}  // namespace fi
