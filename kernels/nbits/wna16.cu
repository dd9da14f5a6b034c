// SPDX-License-Identifier: Apache-2.0
// Contract and reasons: wna16.cuh.
#include <cooperative_groups.h>

#include "csrc/base/launch.h"
#include "kernels/nbits/wna16.cuh"
#include "kernels/nbits/wna16_bits.cuh"
#include "kernels/nbits/wna16_ops.cuh"

namespace fi {
namespace {

namespace cg = cooperative_groups;

constexpr int kThreads = 128;  // at most: 4 warps, one per scheduler of an SM
// Rows of A in shared memory lie 64 bytes further apart than a multiple of 128: 16-byte reads of 2 rows by 4 lanes meet
// all banks.
constexpr int kRowBytes = kWnPieceChunks * kWnChunkK * 2 + 64;
static_assert(kRowBytes % 128 == 64);

__host__ __device__ constexpr int meta_blocks(int block_shift) {
  constexpr int kK = kWnPieceChunks * kWnChunkK;
  return (kK > 1 << block_shift ? kK >> block_shift : 1) + 1;  // + 1: a piece may begin inside a block
}
// A warp's meta for a piece: 32 words a block.
__host__ __device__ constexpr int meta_bytes(int block_shift) { return meta_blocks(block_shift) * 128; }
// Rings, two pieces of A, two of meta. The sums that blocks exchange take the place of all that; their rows are 4
// floats further apart, for the banks.
__host__ __device__ constexpr unsigned shared_bytes(int warps, int rows, int block_shift) {
  const unsigned loop = warps * kWnRing + 2 * rows * kRowBytes + 2 * warps * meta_bytes(block_shift);
  const unsigned sums = rows * (warps * kWnPairN + 4) * 4;
  return loop > sums ? loop : sums;
}

constexpr int kMaxSplit = 8;  // blocks of a portable cluster

// A piece of A is kVectors<MT> times 16 bytes: the i-th of them.
template <int MT>
constexpr int kVectors = MT * kWnPieceChunks * kWnChunkK;
struct Vector {
  const char* from;  // somewhere in A where it is not valid
  char* to;
  bool valid;
};
template <int MT>
__device__ __forceinline__ Vector vector_of_a(const WnA16& p, int i, int chunk, char* a) {
  constexpr int kInRow = kWnPieceChunks * kWnChunkK / 8;
  const int64_t token = static_cast<int64_t>(blockIdx.z) * 8 * MT + i / kInRow;
  const int64_t k = static_cast<int64_t>(chunk) * kWnChunkK + i % kInRow * 8;
  const bool valid = token < p.m && k < p.k;
  return {static_cast<const char*>(p.a) + (valid ? (token * p.k + k) * 2 : 0),
          a + i / kInRow * kRowBytes + i % kInRow * 16, valid};
}
// The first piece, at once: in the groups of cp.async it would stand behind the whole ring.
template <int MT>
__device__ __forceinline__ void load_a(const WnA16& p, int chunk, char* a) {
  constexpr int kEach = kVectors<MT> / kThreads;  // loads before the first store
  for (int first = threadIdx.x; first < kVectors<MT>; first += kEach * blockDim.x) {
    uint4 v[kEach];
#pragma unroll
    for (int e = 0; e < kEach; ++e) {
      const Vector at = vector_of_a<MT>(p, first + e * blockDim.x, chunk, a);
      v[e] = at.valid ? *reinterpret_cast<const uint4*>(at.from) : uint4{0, 0, 0, 0};
    }
#pragma unroll
    for (int e = 0; e < kEach; ++e)
      *reinterpret_cast<uint4*>(vector_of_a<MT>(p, first + e * blockDim.x, chunk, a).to) = v[e];
  }
}
template <int MT>
__device__ __forceinline__ void load_a_async(const WnA16& p, int chunk, char* a) {
  for (int i = threadIdx.x; i < kVectors<MT>; i += blockDim.x) {
    const Vector v = vector_of_a<MT>(p, i, chunk, a);
    copy_async(v.to, v.from, v.valid);
  }
}

// What of this warp's meta belongs to a piece.
__device__ __forceinline__ void load_meta_async(const WnA16& p, const WnExtents& x, int chunk, int64_t pair,
                                                char* meta) {
  if (pair >= x.pairs) return;
  const int64_t block0 = (static_cast<int64_t>(chunk) * kWnChunkK) >> p.block_shift;
  const char* words = reinterpret_cast<const char*>(p.meta + (pair * x.blocks + block0) * 32);
  const int64_t left = x.blocks - block0, some = meta_blocks(p.block_shift);
  const int vectors = static_cast<int>((left < some ? left : some) * 8);
  for (int i = threadIdx.x % 32; i < vectors; i += 32) copy_async(meta + i * 16, words + i * 16);
}

// acc += scale * part, part = 0.
template <int kBits, int MT>
__device__ __forceinline__ void fold(float (&acc)[2][MT][4], float (&part)[2][MT][4], const uint2 (&meta)[2]) {
#pragma unroll
  for (int tile = 0; tile < 2; ++tile)
#pragma unroll
    for (int mt = 0; mt < MT; ++mt)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        acc[tile][mt][i] =
            fmaf(wn_scale<kBits>(i < 2 ? meta[tile].x : meta[tile].y), part[tile][mt][i], acc[tile][mt][i]);
        part[tile][mt][i] = 0;
      }
}

// The sums of all ranks, in their order → Y. Each rank writes its share of the tile.
template <class D, int MT>
__device__ __forceinline__ void finish(const WnA16& p, const float (&acc)[2][MT][4], float* sums) {
  using T = typename D::Type;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  const int columns = blockDim.x / 32 * kWnPairN, stride = columns + 4;
#pragma unroll
  for (int tile = 0; tile < 2; ++tile)
#pragma unroll
    for (int mt = 0; mt < MT; ++mt)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        sums[(mt * 8 + 2 * t + i % 2) * stride + warp * kWnPairN + tile * 16 + g + i / 2 * 8] = acc[tile][mt][i];
  cg::cluster_group cluster = cg::this_cluster();
  cluster.sync();
  const int split = gridDim.x;
  const int64_t n0 = static_cast<int64_t>(blockIdx.y) * columns, token0 = static_cast<int64_t>(blockIdx.z) * 8 * MT;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < 8 * MT * columns; i += split * blockDim.x) {
    const int row = i / columns, column = i % columns;
    if (token0 + row >= p.m || n0 + column >= p.n) continue;
    float parts[kMaxSplit], sum = 0;  // all loads before the first sum: each takes its time
#pragma unroll
    for (int r = 0; r < kMaxSplit; ++r)
      parts[r] = r < split ? cluster.map_shared_rank(sums, r)[row * stride + column] : 0.0f;
#pragma unroll
    for (int r = 0; r < kMaxSplit; ++r) sum += parts[r];
    if (p.bias) sum += static_cast<float>(static_cast<const T*>(p.bias)[n0 + column]);
    static_cast<T*>(p.y)[(token0 + row) * p.n + n0 + column] = static_cast<T>(sum);
  }
  cluster.sync();  // nobody leaves while its sums are read
}

// A step of one warp: what it multiplies, from shared memory.
template <class D, int kBits, int MT, int kFold>
__device__ __forceinline__ void step(const uint4 (&w)[2][kBits / 4], const char* rows, const char* meta, int block0,
                                     int block1, float (&acc)[2][MT][4], float (&part)[2][MT][4]) {
  const int g = threadIdx.x % 32 / 4;
  uint2 scales[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    uint4 b[MT];
#pragma unroll
    for (int mt = 0; mt < MT; ++mt) b[mt] = *reinterpret_cast<const uint4*>(rows + mt * 8 * kRowBytes + h * 64);
    if (h == 0 || kFold == 32) {
#pragma unroll
      for (int tile = 0; tile < 2; ++tile)
        scales[tile] = *reinterpret_cast<const uint2*>(meta + (h ? block1 : block0) * 128 + tile * 64 + g * 8);
    }
#pragma unroll
    for (int tile = 0; tile < 2; ++tile) {
      const uint32_t z0 = wn_zero<kBits>(scales[tile].x), z8 = wn_zero<kBits>(scales[tile].y);
      uint32_t words[kBits], r[4];
#pragma unroll
      for (int v = 0; v < kBits / 4; ++v) {
        words[4 * v] = w[tile][v].x, words[4 * v + 1] = w[tile][v].y;
        words[4 * v + 2] = w[tile][v].z, words[4 * v + 3] = w[tile][v].w;
      }
#pragma unroll
      for (int s = 0; s < 2; ++s) {
        wn_dequantise<kBits, D>(words + wn_word(kBits, 2 * h + s), z0, z8, r);
#pragma unroll
        for (int mt = 0; mt < MT; ++mt) mma<D>(part[tile][mt], r, s ? b[mt].z : b[mt].x, s ? b[mt].w : b[mt].y);
      }
    }
    if (h == 1 || kFold == 32) fold<kBits, MT>(acc, part, scales);
  }
}

// Block (rank, column group, token tile). MT: token tiles of 8. kFold: k's after which scales are applied.
template <class D, int kBits, int MT, int kFold>
__global__ void __launch_bounds__(kThreads, 4) wna16_kernel(const __grid_constant__ WnA16 p) {
  extern __shared__ __align__(128) char shared[];
  constexpr int kBytes = 256 * kBits, kStages = kWnRing / kBytes;  // of a warp's step
  static_assert(kStages - 1 <= kWnPieceChunks, "the next piece must have come when the ring's oldest step has");
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32, g = lane / 4, t = lane % 4;
  const WnExtents x = wn_extents(p.n, p.k, kBits, p.block_shift);
  const WnRange range = wn_range(x.chunks, gridDim.x, blockIdx.x);
  const int64_t pair = static_cast<int64_t>(blockIdx.y) * warps + warp;
  const bool active = pair < x.pairs;
  char* ring = shared + warp * kWnRing + lane * 16;
  char* a = shared + warps * kWnRing;
  const int meta_size = meta_bytes(p.block_shift);
  char* meta = a + 2 * 8 * MT * kRowBytes + warp * 2 * meta_size;
  const char* weights = reinterpret_cast<const char*>(p.weights) + (pair * x.chunks + range.begin) * kBytes + lane * 16;
  const int chunks = range.end - range.begin;
  const uint64_t policy = once_policy();

  const auto issue = [&](int i) {
    if (active && i < chunks) {
      char* to = ring + i % kStages * kBytes;
      const char* from = weights + static_cast<int64_t>(i) * kBytes;
#pragma unroll
      for (int v = 0; v < kBytes / 512; ++v) copy_once(to + v * 512, from + v * 512, policy);
    }
    commit();  // an empty group, too: the waiting counts them
  };
  if (chunks > 0) load_meta_async(p, x, range.begin, pair, meta);
  for (int i = 0; i < kStages - 1; ++i) issue(i);
  if (p.bias && active && lane == 0) prefetch(static_cast<const char*>(p.bias) + pair * kWnPairN * 2);
  let_next_begin();
  wait_for_previous();  // from here on, what other kernels write
  if (chunks > 0) load_a<MT>(p, range.begin, a);

  float acc[2][MT][4] = {}, part[2][MT][4] = {};
  for (int piece = 0, buffer = 0; piece < chunks; piece += kWnPieceChunks, buffer ^= 1) {
    wait_but<kStages - 2>();
    __syncthreads();  // the piece is whole, and nobody reads the one before it
    const int next = piece + kWnPieceChunks, end = next < chunks ? next : chunks;
    if (next < chunks) {
      load_a_async<MT>(p, range.begin + next, a + (buffer ^ 1) * 8 * MT * kRowBytes);
      load_meta_async(p, x, range.begin + next, pair, meta + (buffer ^ 1) * meta_size);
    }
    const char* rows = a + buffer * 8 * MT * kRowBytes + g * kRowBytes + t * 16;
    const int k0 = (range.begin + piece) * kWnChunkK, first = k0 >> p.block_shift;
    for (int i = piece; i < end; ++i) {
      wait_but<kStages - 2>();
      const char* at = ring + i % kStages * kBytes;
      uint4 w[2][kBits / 4];
#pragma unroll
      for (int v = 0; v < kBytes / 512; ++v)
        w[v / (kBits / 4)][v % (kBits / 4)] = *reinterpret_cast<const uint4*>(at + v * 512);
      issue(i + kStages - 1);
      const int in = i - piece, k = k0 + in * kWnChunkK;
      step<D, kBits, MT, kFold>(w, rows + in * kWnChunkK * 2, meta + buffer * meta_size, (k >> p.block_shift) - first,
                                ((k + 32) >> p.block_shift) - first, acc, part);
    }
  }
  wait_but<0>();
  __syncthreads();
  finish<D, MT>(p, acc, reinterpret_cast<float*>(shared));
}

template <class D, int kBits, int MT>
void run(const WnA16& p, const WnSchedule& s, void* stream) {
  const int64_t columns = s.warps * kWnPairN, groups = (p.n + columns - 1) / columns, z = (p.m + 8 * MT - 1) / (8 * MT);
  check(groups <= 65535 && z <= 65535, "wna16: n ", p.n, ", m ", p.m);
  Launch l{dim3(static_cast<unsigned>(s.split), static_cast<unsigned>(groups), static_cast<unsigned>(z)),
           dim3(static_cast<unsigned>(s.warps * 32)), shared_bytes(s.warps, 8 * MT, p.block_shift),
           static_cast<unsigned>(s.split), stream};
  l.early = true;
  launch(p.block_shift == 5 ? wna16_kernel<D, kBits, MT, 32> : wna16_kernel<D, kBits, MT, 64>, p, l, "wna16: ", kBits,
         " bits, m ", p.m, ", n ", p.n, ", k ", p.k, ", block ", 1 << p.block_shift, p.bf16 ? ", bf16" : ", f16");
}

template <class D, int kBits>
void run(const WnA16& p, const WnSchedule& s, void* stream) {
  p.m <= 8 ? run<D, kBits, 1>(p, s, stream) : run<D, kBits, 2>(p, s, stream);
}

}  // namespace

void wna16(const WnA16& p, void* stream) {
  check(p.bits == 4 || p.bits == 8, "wna16: ", p.bits, " bits; needed: 4 or 8");
  check(p.m >= 0 && p.n > 0 && p.k > 0 && p.k < 1 << 30 && p.k % 8 == 0 && p.block_shift >= 5 && p.block_shift < 31,
        "wna16: m ", p.m, ", n ", p.n, ", k ", p.k, ", block 2^", p.block_shift,
        "; needed: k a multiple of 8, blocks from 32 on");
  const uintptr_t all =
      reinterpret_cast<uintptr_t>(p.a) | reinterpret_cast<uintptr_t>(p.weights) | reinterpret_cast<uintptr_t>(p.meta);
  check(all % 16 == 0, "wna16: addresses of A and the weights must be multiples of 16");
  WnSchedule s = wn_schedule(p.n, p.k, p.bits);
  if (p.warps) s.warps = p.warps;
  if (p.split) s.split = p.split;
  const bool known = (s.warps == 1 || s.warps == 2 || s.warps == 4) && s.split >= 1 && s.split <= kMaxSplit;
  check(known, "wna16: ", s.warps, " warps, split ", s.split, "; needed: 1, 2 or 4, 1 to 8");
  if (p.m == 0) return;
  if (p.bf16)
    p.bits == 4 ? run<WnBFloat, 4>(p, s, stream) : run<WnBFloat, 8>(p, s, stream);
  else
    p.bits == 4 ? run<WnHalf, 4>(p, s, stream) : run<WnHalf, 8>(p, s, stream);
}

}  // namespace fi
