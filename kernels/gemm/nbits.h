// SPDX-License-Identifier: Apache-2.0
// Matrix product with 4-bit or 8-bit weights, scaled by blocks of k: they stay so in memory and become floats a chunk
// of a panel at a time, in the cache.
//   Y[m, n] = bias[n] + sum over k of A[m, k] * (q[k, n] - zero[k / block, n]) * scale[k / block, n]
// Packed the same for every instruction set: panels of 64 columns, the last round_up(N % 64, 16) wide;
//   q: [panel][ceil(K / 2)][width] bytes, even k in the low half (4 bits), or [panel][K][width] (8 bits)
//   scale, zero: [panel][ceil(K / block)][width] floats
#pragma once
#include "kernels/gemm/gemm.h"

namespace fi {

struct NBitsPanels {
  int64_t k = 0, n = 0, block = 0;
  int bits = 4;
};
static inline int64_t rows_of_q(const NBitsPanels& p) { return p.bits == 4 ? (p.k + 1) / 2 : p.k; }
static inline int64_t blocks_of_k(const NBitsPanels& p) { return (p.k + p.block - 1) / p.block; }
static inline GemmPanels columns_of(const NBitsPanels& p, int64_t rows) { return {1, rows, p.n, 64}; }

// b: [N][blocks][block * bits / 8], low half first. values: [N][blocks].
void pack_nbits(const NBitsPanels&, const uint8_t* b, uint8_t* packed);
void pack_nbits_values(const NBitsPanels&, const float* values, float* packed);

// Part of a panel: rows [k0, k1) (k0 even) of `width` columns as floats, out[(k - k0) * width + n].
struct NBitsChunk {
  const uint8_t* q;
  const float *scale, *zero;  // zero null: half of the range (8 or 128)
  int64_t block, width, k0, k1;
  int bits;
};
using DequantizeFn = void (*)(const NBitsChunk&, float* out);
DequantizeFn dequantize_nbits(Isa);

struct NBitsStep {
  const GemmF32* kernel = nullptr;
  DequantizeFn dequantize = nullptr;
  NBitsPanels b;
  int64_t m = 0;
};
constexpr int64_t kNBitsChunk = 128;  // k's at a time: 32 KiB of floats
// args: A [m, k], q, scale, zero or null, bias or null, Y, scratch of kNBitsChunk * 64 floats per part.
Status nbits_step(const void* params, void* const* args, int part, int parts);

}  // namespace fi
