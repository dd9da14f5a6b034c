// SPDX-License-Identifier: Apache-2.0
// Few rows times 4-bit weights in blocks along k (com.microsoft MatMulNBits), on Hopper:
//   Y[m, n] = bias[n] + sum over k of A[m, k] * (q[n, k] - zero[n, k / block]) * scale[n, k / block]
// A, bias, Y: float16 or bfloat16; block: a power of two from 32 on; zero points: integers; K a multiple of 8.
//
// The bound is memory: n k / 2 bytes of weights are read once, and 16 rows are only 32 operations per weight. So:
// * Weights are reordered when the model is compiled into what lanes want of mma.m16n8k16: 16 bytes of one lane are its
// A
//   operands of four such products (16 columns of Y, 64 k's), and a warp reads 1 KiB in one piece per step. Weights are
//   the product's 16-row side: with up to 8 rows of A no lane of the tensor cores' work is padding that costs, and the
//   products for 9 to 16 rows reuse the dequantised registers. (As the 8-column side, as in Marlin, twice the
//   products.)
// * cp.async of 16 bytes into a ring of kW4Stages steps, a ring per warp: a lane reads back what it wrote itself, so
// the
//   main loop has no barrier. 8 KiB in flight a warp: 32 KiB a block, 64 to 96 KiB an SM; Little's law asks for about
//   4.3 TB/s * 0.8 us / 132 = 26 KiB.
// * Dequantisation makes q - zero exactly, by placing q into the mantissa of 1024 (float16) or 128 (bfloat16) and one
//   subtraction (or multiply-add): 9 to 11 instructions for 8 weights. Products of it are exact in float32, scales are
//   applied to the sums of a block: no weight is ever rounded.
// * A scale and its zero point are one word: the float without its last 4 bits of mantissa (exact for scales that were
//   float16 or bfloat16, else 2^-20), the zero point there instead.
// * k is split over the blocks of a cluster; they add their sums through distributed shared memory in the order of
// their
//   ranks: no workspace, no second launch, no atomics, the same bits each time. The split depends on n and k alone and
//   a row's sums on nothing but that row, so a row's bits do not depend on m.
#pragma once
#include <cstdint>

#include "csrc/base/host_device.h"

namespace fi {

constexpr int kW4Stages = 8, kW4ChunkK = 64, kW4PairN = 32, kW4PieceChunks = 8;

struct W4A16 {
  const void* a = nullptr;  // [m, k]
  const uint32_t *weights = nullptr, *meta = nullptr;
  const void* bias = nullptr;  // [n] or null
  void* y = nullptr;           // [m, n]
  int64_t m = 0, n = 0, k = 0;
  int block_shift = 5;       // block = 1 << block_shift
  int bf16 = 0;              // else float16
  int warps = 0, split = 0;  // 0: chosen by n and k
};

// Extents of the reordered weights: weights [pairs][chunks][2 tiles][32 lanes][4 words], meta [pairs][blocks][2][16].
struct W4Extents {
  int64_t pairs, chunks, blocks;
  FI_HD int64_t weight_words() const { return pairs * chunks * 256; }
  FI_HD int64_t meta_words() const { return pairs * blocks * 32; }
};
FI_HD W4Extents w4_extents(int64_t n, int64_t k, int block_shift) {
  const int64_t chunks = (k + kW4ChunkK - 1) / kW4ChunkK;
  return {(n + kW4PairN - 1) / kW4PairN, chunks, (chunks * kW4ChunkK + (int64_t{1} << block_shift) - 1) >> block_shift};
}

// mma.m16n8k16, g = lane / 4, t = lane % 4: register r (of 4), half e of A is row w4_row(g, r); its k, in a chunk, for
// product s (of 4) is w4_k(t, s, 2 * (r / 2) + e): eight neighbours of a lane's k's lie together in A, two loads of 16
// bytes a chunk.
FI_HD int w4_row(int g, int r) { return g + 8 * (r & 1); }
FI_HD int w4_k(int t, int s, int j) { return 32 * (s >> 1) + 8 * t + 4 * (s & 1) + j; }
// Which four bits of a word become register r, half e: 0x000f000f picks both halves of a register.
FI_HD int w4_nibble(int r, int e) { return r + 4 * e; }

struct W4Place {
  int64_t word;
  int shift;
};
// Where q[n, k] is.
FI_HD W4Place w4_place(const W4Extents& x, int64_t n, int64_t k) {
  const int64_t pair = n / kW4PairN, chunk = k / kW4ChunkK;
  const int tile = static_cast<int>(n % kW4PairN) / 16, row = static_cast<int>(n % 16), in = static_cast<int>(k % 64);
  const int t = in % 32 / 8, s = in / 32 * 2 + in % 8 / 4, j = in % 4;
  const int lane = row % 8 * 4 + t, r = row / 8 + 2 * (j / 2);
  return {((pair * x.chunks + chunk) * 2 + tile) * 128 + lane * 4 + s, 4 * w4_nibble(r, j % 2)};
}
FI_HD int64_t w4_meta_place(const W4Extents& x, int64_t n, int64_t block) {
  const int in = static_cast<int>(n % 16);
  return ((n / kW4PairN * x.blocks + block) * 2 + n % kW4PairN / 16) * 16 + in % 8 * 2 + in / 8;
}

// Chunks of k that a rank of the cluster takes.
struct W4Range {
  int64_t begin, end;
};
FI_HD W4Range w4_range(int64_t chunks, int split, int rank) {
  return {chunks * rank / split, chunks * (rank + 1) / split};
}

struct W4Schedule {
  int warps, split;  // of a block; blocks of a cluster
};
W4Schedule w4_schedule(int64_t n, int64_t k);

// q [n, ceil(k / block), block / 2] and zeros [n, ceil(ceil(k / block) / 2)] as MatMulNBits has them, low half first;
// zeros may be null (8). scales: float32 [n, ceil(k / block)].
void w4_shuffle(int64_t n, int64_t k, int block_shift, const uint8_t* q, uint32_t* weights);
void w4_unshuffle(int64_t n, int64_t k, int block_shift, const uint32_t* weights, uint8_t* q);
void w4_shuffle_meta(int64_t n, int64_t k, int block_shift, const float* scales, const uint8_t* zeros, uint32_t* meta);

void w4a16(const W4A16&, void* stream);
// The same on the host, lane by lane, with the kernel's own maps, dequantisation and order of sums; a, bias, y: float32
// (a and bias hold numbers of the type that p.bf16 names).
void w4a16_on_host(const W4A16&);

}  // namespace fi
