// SPDX-License-Identifier: Apache-2.0
// Small float blocks transposed in the cache.
#pragma once
#include "kernels/simd/simd.h"
#if defined(__AVX2__)
#include "kernels/move/x86_wide.h"
#else
#include "kernels/move/wide.h"
#endif

namespace fi::FI_ISA {

// y[c·to + r] = x[r·from + c] for r < rows, c < cols; rows: a multiple of 16, cols: of 4.
// Four columns of W rows at a time: lane k of register j is four columns of row 4k + j, and two rounds of in-lane
// unpacks transpose every lane, so no shuffle crosses lanes.
static void transpose_block(const float* x, int64_t from, float* y, int64_t to, int64_t rows, int64_t cols) {
  using V = Wide<4 * VF::W>;
  const int64_t step = from * 4;
  for (int64_t c = 0; c < cols; c += 4)
    for (int64_t r = 0; r < rows; r += VF::W) {
      const char* p = reinterpret_cast<const char*>(x + r * from + c);
      const V a = V::load_lanes(p, 4 * step), b = V::load_lanes(p + step, 4 * step);
      const V d = V::load_lanes(p + 2 * step, 4 * step), e = V::load_lanes(p + 3 * step, 4 * step);
      const V ad0 = V::template unpack_low<4>(a, d), ad1 = V::template unpack_high<4>(a, d);
      const V be0 = V::template unpack_low<4>(b, e), be1 = V::template unpack_high<4>(b, e);
      float* out = y + c * to + r;
      V::template unpack_low<4>(ad0, be0).store(reinterpret_cast<char*>(out));
      V::template unpack_high<4>(ad0, be0).store(reinterpret_cast<char*>(out + to));
      V::template unpack_low<4>(ad1, be1).store(reinterpret_cast<char*>(out + 2 * to));
      V::template unpack_high<4>(ad1, be1).store(reinterpret_cast<char*>(out + 3 * to));
    }
}

}  // namespace fi::FI_ISA
