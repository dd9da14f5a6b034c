// SPDX-License-Identifier: Apache-2.0
// Matrix product with 4-bit or 8-bit weights, scaled by blocks of k (a power of two from 16 on): they stay so in
// memory.
//   Y[m, n] = bias[n] + sum over k of A[m, k] * (q[k, n] - zero[k / block, n]) * scale[k / block, n]
// Two forms, chosen by the layer (its accuracy level and block) and never by M:
//   f32: every weight becomes the float (q - zero) * scale, and each Y is one chain of (fused) multiply-adds from 0, k
//        ascending: the chain of kernels/gemm/gemm.h, so that few rows (weights made in registers) and many rows (a
//        chunk of a panel made once, then the f32 microkernel) give the same bits.
//   s8:  each block of a row of A becomes bytes, A[m, k] ~ d * qa, d = max |A| / 127 over the block, and
//        Y[m, n] = chain over blocks of fma(sum qa q - zero sum qa, d * scale, .): the sums are exact, so no tile
//        changes a bit.
// Packed the same for every instruction set: panels of 64 columns, the last round_up(N % 64, 16) wide;
//   q: [panel][group][width] of 4 bytes: byte i of group g holds k = 4 g + i (8 bits), or k = 8 g + i in its low half
//      and k = 8 g + 4 + i in its high half (4 bits). What lies beyond K is not defined.
//   scale, zero: [panel][ceil(K / block)][width] floats
#pragma once
#include "kernels/gemm/gemm.h"

namespace fi {

struct NBitsPanels {
  int64_t k = 0, n = 0, block = 0;
  int bits = 4;
};
static inline int64_t group_of(const NBitsPanels& p) { return 32 / p.bits; }  // k's in 4 bytes
static inline int64_t groups_of_k(const NBitsPanels& p) { return (p.k + group_of(p) - 1) / group_of(p); }
static inline int64_t blocks_of_k(const NBitsPanels& p) { return (p.k + p.block - 1) / p.block; }
static inline GemmPanels columns_of(const NBitsPanels& p, int64_t rows) { return {1, rows, p.n, 64}; }

// b: [N][blocks][block * bits / 8], low half first. values: [N][blocks].
void pack_nbits(const NBitsPanels&, const uint8_t* b, uint8_t* packed);
void pack_nbits_values(const NBitsPanels&, const float* values, float* packed);

// Rows of A quantized by blocks, in one piece of memory.
struct NBitsRows {
  int64_t m = 0, stride = 0, blocks = 0;  // stride: bytes of a row, round_up(K, 16); those beyond K are 0
};
static inline int64_t rows_bytes(const NBitsRows& r) { return r.m * (r.stride + r.blocks * 12); }
struct QuantizedRow {
  int8_t* q;       // [stride]
  float* scale;    // [blocks] d
  int32_t* start;  // [blocks] what a block's sum begins with: -half * sum qa, or 0 where there are zero points
  float* sum;      // [blocks] sum qa
};
static inline QuantizedRow quantized_row(const NBitsRows& r, void* memory, int64_t i) {
  char* p = static_cast<char*>(memory);
  char* values = p + r.m * r.stride + i * r.blocks * 12;
  return {reinterpret_cast<int8_t*>(p + i * r.stride), reinterpret_cast<float*>(values),
          reinterpret_cast<int32_t*>(values + r.blocks * 4), reinterpret_cast<float*>(values + r.blocks * 8)};
}

// Rows of A times the columns of one panel.
struct NBitsTile {
  const float* a = nullptr;  // f32: row r at a + r * k
  NBitsRows quantized;       // s8: rows from `first` on
  void* bytes = nullptr;
  int64_t first = 0, rows = 0;
  const uint8_t* q = nullptr;
  const float *scale = nullptr, *zero = nullptr;  // zero null: half of the range (8 or 128)
  int64_t k = 0, block = 0, cols = 0, width = 0;
  int bits = 4;
  float* c = nullptr;
  int64_t ldc = 0;
  const float* bias = nullptr;  // [cols] or null
};

// Part of a panel: rows [k0, k1) (k0 a multiple of 8) of its columns as floats, out[(k - k0) * width + n].
struct NBitsChunk {
  const uint8_t* q;
  const float *scale, *zero;
  int64_t block, width, k0, k1;
  int bits;
};

// Rows of kernels.inc and kernels_s8.inc.
struct NBitsF32 {
  void (*dequantize)(const NBitsChunk&, float* out);
  void (*few_rows)(const NBitsTile&);
};
struct NBitsS8 {
  void (*rows)(const NBitsTile&);
  void (*quantize)(const float* a, int64_t k, int64_t block, int32_t half, const QuantizedRow&);
};
struct NBitsKernels {
  const char *f32_name, *s8_name;
  const NBitsF32* f32;
  const NBitsS8* s8;
};
const NBitsKernels& nbits_kernels(Isa);

// Sums of a block must fit the 24 bits of a float: 127 * 255 * 256 < 2^23.
constexpr int64_t kNBitsS8Block = 256;
constexpr int64_t kNBitsFewRows = 8;  // up to here weights become floats in registers
constexpr int64_t kNBitsChunk = 256;  // k's at a time beyond: 64 KiB of floats

struct NBitsStep {
  const NBitsKernels* kernels = nullptr;
  const GemmF32* gemm = nullptr;
  NBitsPanels b;
  NBitsRows quantized;  // s8
  int64_t m = 0;
  bool zeros = false;
};
// args: A [m, k], q, scale, zero or null, bias or null, Y, scratch of kNBitsChunk * 64 floats per part.
Status nbits_f32_step(const void* params, void* const* args, int part, int parts);
// args: A [m, k], quantized rows (rows_bytes).
Status nbits_quantize_step(const void* params, void* const* args, int part, int parts);
// args: quantized rows, q, scale, zero or null, bias or null, Y.
Status nbits_s8_step(const void* params, void* const* args, int part, int parts);

}  // namespace fi
