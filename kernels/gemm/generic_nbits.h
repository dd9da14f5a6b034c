// SPDX-License-Identifier: Apache-2.0
// Contract: kernels/gemm/nbits.h.
#pragma once
#include "kernels/gemm/nbits.h"
#include "kernels/simd/simd.h"

namespace fi::FI_ISA {

FI_INLINE void dequantize_row(VF q, const NBitsChunk& c, int64_t k, int64_t n, VF scale, VF zero, float* out) {
  if (k < c.k1) store(out + (k - c.k0) * c.width + n, (q - zero) * scale);
}

FI_INLINE void dequantize_chunk(const NBitsChunk& c, float* out) {
  for (int64_t k = c.k0; k < c.k1;) {
    const int64_t end = k / c.block * c.block + c.block < c.k1 ? k / c.block * c.block + c.block : c.k1;
    const int64_t values = k / c.block * c.width;
    for (int64_t n = 0; n < c.width; n += VF::W) {
      const VF scale = load(c.scale + values + n);
      const VF zero = c.zero ? load(c.zero + values + n) : set1(c.bits == 4 ? 8.f : 128.f);
      if (c.bits == 8) {
        for (int64_t i = k; i < end; ++i) dequantize_row(load_u8(c.q + i * c.width + n), c, i, n, scale, zero, out);
        continue;
      }
      for (int64_t i = k; i < end; i += 2) {
        // The halves of a byte, as floats: exact.
        const VF both = load_u8(c.q + i / 2 * c.width + n), high = floor(both * set1(1.f / 16));
        dequantize_row(fnma(high, set1(16.f), both), c, i, n, scale, zero, out);
        dequantize_row(high, c, i + 1, n, scale, zero, out);
      }
    }
    k = end;
  }
}

}  // namespace fi::FI_ISA
