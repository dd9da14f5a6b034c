// SPDX-License-Identifier: Apache-2.0
// Few rows times weights of 4 or 8 bits in blocks along k (com.microsoft MatMulNBits), on Hopper:
//   Y[m, n] = bias[n] + sum over k of A[m, k] * (q[n, k] - zero[n, k / block]) * scale[n, k / block]
// A, bias, Y: float16 or bfloat16; block: a power of two from 32 on (one not below k: channel-wise); zero points:
// integers; K a multiple of 8.
//
// The bound is memory: n k bits / 8 bytes of weights are read once, and 16 rows are only 32 operations per weight.
// * Weights are reordered when the model is compiled into what lanes want of mma.m16n8k16, so that 16 bytes of one
//   lane are its A operands of four such products (of two, of 8 bits): 16 columns of Y by 64 (32) k's. A warp reads 2
//   tiles of them by 64 k's in a step, 1 KiB (2 KiB) in one piece. Weights are the product's 16-row side: with up to 8
//   rows of A no lane of the tensor cores' work is padding that costs, and the products for 9 to 16 rows reuse the
//   dequantised registers. (As the 8-column side, as in Marlin, twice the products.)
// * cp.async of 16 bytes into a ring of 8 KiB a warp, 7 (6) KiB of it in flight. A lane reads back what it wrote
//   itself, so steps need no barrier; A comes in pieces of 512 k's into two buffers by turns, one barrier a piece, and
//   the ring stays full over it.
// * Dequantisation makes q - zero exactly: 4 bits are placed into the mantissa of 1024 (float16) or 128 (bfloat16),
//   less 1024 + zero; bytes by a permutation into 1024's (float16) or float32's 2^23 (bfloat16), less the same.
//   Products are exact in float32, scales are applied to the sums of a block: no weight is ever rounded.
// * A scale and its zero point are one word: the float without its last `bits` bits of mantissa (exact for scales that
//   were float16 or bfloat16, else 2^-20, 2^-16), the zero point there instead.
// * k is split over the blocks of a cluster; they add their sums through distributed shared memory in the order of
//   their ranks: no workspace, no second launch, no atomics, the same bits each time. The split depends on n, k and
//   bits alone and a row's sums on nothing but that row, so a row's bits do not depend on m.
//
// Arithmetic, for 132 SMs at 4.3 TB/s = 32.6 bytes a ns and SM, at 1.7 GHz (none of it measured):
// * Little's law asks for 0.8 us * 32.6 = 26 KB in flight an SM; 40 KiB leave room for uneven arrival. A block of 4
//   warps has 28 KiB. Its shared memory is 54 KiB for 8 rows in blocks of 128 (67 in blocks of 32), 72 (85) for 16
//   rows, its registers at most 128 a thread: four (three), three (two) blocks fit an SM, and two suffice.
// * SMs should have equal shares. 4096 x 4096 of 4 bits: split 8, 256 blocks of 32 KiB, two an SM: 97 % of even, and
//   7/8 of all weights are asked for before anything is waited for. 8192 x 8192: split 4, 256 blocks of 128 KiB, the
//   same. wn_schedule weighs this for any n and k, and tests hold it to 84 %.
// * Instructions: a step of 1 KiB of 4-bit weights is 136 of a warp (f16, 8 rows, blocks from 64 on; bf16 151, 16 rows
//   157 and 172, blocks of 32 some 30 more; of 8 bits 66 to 144 a KiB; tests hold a bound). An SM issues 4 a clock, 34
//   clocks a KiB, where memory brings one in 53. About half are integer ones, of half the rate: as many clocks.
// * A is read from the L2 by every column group: for 16 rows half as many bytes as 4-bit weights, for one a 32nd.
// * A word of meta adds 3 bytes in 50 to 4-bit weights in blocks of 128, and 1 in 4 in blocks of 32, which a format
//   with 16-bit scales would halve.
// * 4096 x 4096 is 8.9 MB with its scales: 2.1 us, as much as a launch and its first loads. So launches overlap: a
//   block lets the next one begin at once, and asks for its own weights, which no kernel writes, before it waits for
//   the launches before it (griddepcontrol). Room for the next one's blocks is there: see above. Behind a kernel that
//   is not ours the launch itself overlaps still.
// * Weights pass the L2 marked to be evicted first: activations, and what other kernels will read, stay.
#pragma once
#include <cstdint>

#include "csrc/base/host_device.h"

namespace fi {

constexpr int kWnChunkK = 64, kWnPairN = 32, kWnPieceChunks = 8;
constexpr int kWnRing = 8192;  // bytes of a warp

struct WnA16 {
  const void* a = nullptr;  // [m, k]
  const uint32_t *weights = nullptr, *meta = nullptr;
  const void* bias = nullptr;  // [n] or null
  void* y = nullptr;           // [m, n]
  int64_t m = 0, n = 0, k = 0;
  int bits = 4;              // or 8
  int block_shift = 5;       // block = 1 << block_shift
  int bf16 = 0;              // else float16
  int warps = 0, split = 0;  // 0: chosen by n and k
};

// Extents of the reordered weights: weights [pairs][chunks][2 tiles][bits / 4][32 lanes][4 words], meta
// [pairs][blocks][2][16].
struct WnExtents {
  int64_t pairs, chunks, blocks;
  int bits;
  FI_HD int64_t chunk_words() const { return 64 * bits; }
  FI_HD int64_t weight_words() const { return pairs * chunks * chunk_words(); }
  FI_HD int64_t meta_words() const { return pairs * blocks * 32; }
};
FI_HD WnExtents wn_extents(int64_t n, int64_t k, int bits, int block_shift) {
  const int64_t chunks = (k + kWnChunkK - 1) / kWnChunkK;
  return {(n + kWnPairN - 1) / kWnPairN, chunks, (chunks * kWnChunkK + (int64_t{1} << block_shift) - 1) >> block_shift,
          bits};
}

// mma.m16n8k16, g = lane / 4, t = lane % 4: register r (of 4), half e of A is row wn_row(g, r); its k, in a chunk, for
// product s (of 4) is wn_k(t, s, 2 * (r / 2) + e): eight neighbours of a lane's k's lie together in A, two loads of 16
// bytes a chunk.
FI_HD int wn_row(int g, int r) { return g + 8 * (r & 1); }
FI_HD int wn_k(int t, int s, int j) { return 32 * (s >> 1) + 8 * t + 4 * (s & 1) + j; }
// Product s of a tile takes words wn_word(bits, s) and, of 8 bits, the one behind it, of the lane's 4 * bits / 4.
FI_HD int wn_word(int bits, int s) { return s * (bits / 4); }
// Which four bits of a word become register r, half e: 0x000f000f picks both halves of a register.
FI_HD int wn_nibble(int r, int e) { return r + 4 * e; }

struct WnPlace {
  int64_t word;
  int shift;
};
// Where q[n, k] is.
FI_HD WnPlace wn_place(const WnExtents& x, int64_t n, int64_t k) {
  const int64_t pair = n / kWnPairN, chunk = k / kWnChunkK;
  const int tile = static_cast<int>(n % kWnPairN) / 16, row = static_cast<int>(n % 16), in = static_cast<int>(k % 64);
  const int t = in % 32 / 8, s = in / 32 * 2 + in % 8 / 4, j = in % 4;
  const int lane = row % 8 * 4 + t, r = row / 8 + 2 * (j / 2);
  const int word = wn_word(x.bits, s) + (x.bits == 8 ? r & 1 : 0);  // of 8 bits, a word is four k's of a row
  const int64_t vector = ((pair * x.chunks + chunk) * 2 + tile) * (x.bits / 4) + word / 4;
  return {vector * 128 + lane * 4 + word % 4, x.bits == 8 ? 8 * j : 4 * wn_nibble(r, j % 2)};
}
FI_HD int64_t wn_meta_place(const WnExtents& x, int64_t n, int64_t block) {
  const int in = static_cast<int>(n % 16);
  return ((n / kWnPairN * x.blocks + block) * 2 + n % kWnPairN / 16) * 16 + in % 8 * 2 + in / 8;
}

// Chunks of k that a rank of the cluster takes.
struct WnRange {
  int begin, end;
};
FI_HD WnRange wn_range(int64_t chunks, int split, int rank) {
  return {static_cast<int>(chunks * rank / split), static_cast<int>(chunks * (rank + 1) / split)};
}

struct WnSchedule {
  int warps, split;  // of a block; blocks of a cluster
};
WnSchedule wn_schedule(int64_t n, int64_t k, int bits);

// q [n, ceil(k / block), block * bits / 8] and zeros [n, ceil(ceil(k / block) * bits / 8)] as MatMulNBits has them, low
// half first; zeros may be null (half of the range). scales: float32 [n, ceil(k / block)].
void wn_shuffle(int64_t n, int64_t k, int bits, int block_shift, const uint8_t* q, uint32_t* weights);
void wn_unshuffle(int64_t n, int64_t k, int bits, int block_shift, const uint32_t* weights, uint8_t* q);
void wn_shuffle_meta(int64_t n, int64_t k, int bits, int block_shift, const float* scales, const uint8_t* zeros,
                     uint32_t* meta);

void wna16(const WnA16&, void* stream);
// The same on the host, lane by lane, with the kernel's own maps, dequantisation and order of sums; a, bias, y: float32
// (a and bias hold numbers of the type that p.bf16 names).
void wna16_on_host(const WnA16&);

}  // namespace fi
