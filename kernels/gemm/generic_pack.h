// SPDX-License-Identifier: Apache-2.0
// Packing of a panel of B at run time. Contract: GemmF32::pack_panel in kernels/gemm/gemm.h.
#pragma once
#include "kernels/move/wide.h"
#include "kernels/simd/simd.h"
#ifdef __AVX2__
#include "kernels/move/x86_wide.h"
#endif

namespace fi::FI_ISA {

// Four k's of VF::W columns, each column contiguous along k. 128-bit loads put column 4c + j in lane c of vector j, so
// that two rounds of unpacking within lanes finish the transpose.
FI_INLINE void pack_tile(const float* b, int64_t stride_n, int64_t width, float* out) {
  using V = Wide<VF::W * 4>;
  V v[4];
  for (int j = 0; j < 4; ++j)
    v[j] = V::load_lanes(reinterpret_cast<const char*>(b + j * stride_n),
                         4 * stride_n * static_cast<int64_t>(sizeof(float)));
  const V a = V::template unpack_low<4>(v[0], v[2]), c = V::template unpack_high<4>(v[0], v[2]);
  const V d = V::template unpack_low<4>(v[1], v[3]), e = V::template unpack_high<4>(v[1], v[3]);
  V::template unpack_low<4>(a, d).store(reinterpret_cast<char*>(out));
  V::template unpack_high<4>(a, d).store(reinterpret_cast<char*>(out + width));
  V::template unpack_low<4>(c, e).store(reinterpret_cast<char*>(out + 2 * width));
  V::template unpack_high<4>(c, e).store(reinterpret_cast<char*>(out + 3 * width));
}

FI_INLINE void pack_columns(const float* b, int64_t stride_k, int64_t stride_n, int64_t k, int64_t begin, int64_t end,
                            int64_t width, float* out) {
  for (int64_t i = 0; i < k; ++i)
    for (int64_t n = begin; n < end; ++n) out[i * width + n] = b[i * stride_k + n * stride_n];
}

// Rows that lie contiguous.
FI_INLINE void pack_rows(const float* b, int64_t stride_k, int64_t k, int64_t cols, int64_t width, float* out) {
  for (int64_t i = 0; i < k; ++i, b += stride_k, out += width) {
    int64_t n = 0;
    for (; n + VF::W <= cols; n += VF::W) store(out + n, load(b + n));
    if (n < cols) store(out + n, load(b + n, static_cast<int>(cols - n)));
  }
}

FI_INLINE void gemm_pack(const float* b, int64_t stride_k, int64_t stride_n, int64_t k, int64_t cols, int64_t width,
                         float* out) {
  if (stride_n == 1) {
    pack_rows(b, stride_k, k, cols, width, out);
  } else if (stride_k == 1) {
    const int64_t whole_k = k / 4 * 4, whole_n = cols / VF::W * VF::W;
    // A line of each column is used up before the next columns.
    for (int64_t line = 0; line < whole_k; line += 16)
      for (int64_t n = 0; n < whole_n; n += VF::W)
        for (int64_t i = line; i < line + 16 && i < whole_k; i += 4)
          pack_tile(b + n * stride_n + i, stride_n, width, out + i * width + n);
    pack_columns(b + whole_k, 1, stride_n, k - whole_k, 0, whole_n, width, out + whole_k * width);
    pack_columns(b, 1, stride_n, k, whole_n, cols, width, out);
  } else {
    pack_columns(b, stride_k, stride_n, k, 0, cols, width, out);
  }
  if (cols < width)
    for (int64_t i = 0; i < k; ++i)
      for (int64_t n = cols; n < width; ++n) out[i * width + n] = 0;
}

}  // namespace fi::FI_ISA
