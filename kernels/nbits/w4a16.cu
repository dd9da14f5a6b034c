// SPDX-License-Identifier: Apache-2.0
// Contract and reasons: w4a16.cuh.
#include <cooperative_groups.h>

#include <type_traits>

#include "csrc/base/launch.h"
#include "kernels/nbits/w4a16.cuh"
#include "kernels/nbits/w4a16_bits.cuh"

namespace fi {
namespace {

namespace cg = cooperative_groups;

// 16 bytes, or zeros.
__device__ __forceinline__ void copy_async(void* to, const void* from, bool valid = true) {
  const unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(valid ? 16 : 0) : "memory");
}
__device__ __forceinline__ void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N>
__device__ __forceinline__ void wait_but() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

template <class D>
__device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if constexpr (std::is_same_v<D, W4Half>)
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

constexpr int kThreads = 128;  // at most: 4 warps, one per scheduler of an SM
constexpr int kRing = kW4Stages * 1024;
// Rows of A in shared memory lie 64 bytes further apart than a multiple of 128: 16-byte reads of 2 rows by 4 lanes meet
// all banks.
constexpr int kRowBytes = kW4PieceChunks * kW4ChunkK * 2 + 64;

__host__ __device__ constexpr int meta_blocks(int block_shift) {
  constexpr int kK = kW4PieceChunks * kW4ChunkK;
  return (kK > 1 << block_shift ? kK >> block_shift : 1) + 1;  // + 1: a piece may begin inside a block
}
// The sums that blocks exchange take the place of all that; their rows are 4 floats further apart, for the banks.
__host__ __device__ constexpr unsigned shared_bytes(int warps, int rows, int block_shift) {
  const unsigned loop = warps * kRing + rows * kRowBytes + warps * meta_blocks(block_shift) * 128;
  const unsigned sums = rows * (warps * kW4PairN + 4) * 4;
  return loop > sums ? loop : sums;
}

// A piece of A and the meta of this warp's columns → shared memory. Not waited for.
template <int MT>
__device__ __forceinline__ void load_piece(const W4A16& p, const W4Extents& x, int64_t chunk, int64_t pair, char* a,
                                           char* meta) {
  constexpr int kVectors = kW4PieceChunks * kW4ChunkK / 8;
  const int64_t token0 = static_cast<int64_t>(blockIdx.z) * 8 * MT, k0 = chunk * kW4ChunkK;
  const char* from = static_cast<const char*>(p.a);
  for (int i = threadIdx.x; i < 8 * MT * kVectors; i += blockDim.x) {
    const int64_t row = i / kVectors, k = k0 + i % kVectors * 8;
    const bool valid = token0 + row < p.m && k < p.k;
    copy_async(a + row * kRowBytes + i % kVectors * 16, valid ? from + ((token0 + row) * p.k + k) * 2 : from, valid);
  }
  if (pair >= x.pairs) return;
  const int64_t block0 = k0 >> p.block_shift;
  const char* words = reinterpret_cast<const char*>(p.meta + (pair * x.blocks + block0) * 32);
  const int64_t left = x.blocks - block0, some = meta_blocks(p.block_shift);
  const int vectors = static_cast<int>((left < some ? left : some) * 8);
  for (int i = threadIdx.x % 32; i < vectors; i += 32) copy_async(meta + i * 16, words + i * 16);
}

// acc += scale * part, part = 0.
template <int MT>
__device__ __forceinline__ void fold(float (&acc)[2][MT][4], float (&part)[2][MT][4], const uint2 (&meta)[2]) {
#pragma unroll
  for (int tile = 0; tile < 2; ++tile)
#pragma unroll
    for (int mt = 0; mt < MT; ++mt)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        acc[tile][mt][i] = fmaf(w4_scale(i < 2 ? meta[tile].x : meta[tile].y), part[tile][mt][i], acc[tile][mt][i]);
        part[tile][mt][i] = 0;
      }
}

// The sums of all ranks, in their order → Y. Each rank writes its share of the tile.
template <class D, int MT>
__device__ __forceinline__ void finish(const W4A16& p, const float (&acc)[2][MT][4], float* sums) {
  using T = typename D::Type;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  const int columns = blockDim.x / 32 * kW4PairN, stride = columns + 4;
#pragma unroll
  for (int tile = 0; tile < 2; ++tile)
#pragma unroll
    for (int mt = 0; mt < MT; ++mt)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        sums[(mt * 8 + 2 * t + i % 2) * stride + warp * kW4PairN + tile * 16 + g + i / 2 * 8] = acc[tile][mt][i];
  cg::cluster_group cluster = cg::this_cluster();
  cluster.sync();
  const int split = gridDim.x;
  const int64_t n0 = static_cast<int64_t>(blockIdx.y) * columns, token0 = static_cast<int64_t>(blockIdx.z) * 8 * MT;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < 8 * MT * columns; i += split * blockDim.x) {
    const int row = i / columns, column = i % columns;
    if (token0 + row >= p.m || n0 + column >= p.n) continue;
    float sum = 0;
    for (int r = 0; r < split; ++r) sum += cluster.map_shared_rank(sums, r)[row * stride + column];
    if (p.bias) sum += static_cast<float>(static_cast<const T*>(p.bias)[n0 + column]);
    static_cast<T*>(p.y)[(token0 + row) * p.n + n0 + column] = static_cast<T>(sum);
  }
  cluster.sync();  // nobody leaves while its sums are read
}

// Block (rank, column group, token tile). MT: token tiles of 8. kFold: k's after which scales are applied.
template <class D, int MT, int kFold>
__global__ void __launch_bounds__(kThreads, 4) w4a16_kernel(const __grid_constant__ W4A16 p) {
  extern __shared__ __align__(128) char shared[];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32, g = lane / 4, t = lane % 4;
  const W4Extents x = w4_extents(p.n, p.k, p.block_shift);
  const W4Range range = w4_range(x.chunks, gridDim.x, blockIdx.x);
  const int64_t pair = static_cast<int64_t>(blockIdx.y) * warps + warp;
  const bool active = pair < x.pairs;
  char* ring = shared + warp * kRing + lane * 16;
  char* a = shared + warps * kRing;
  char* meta = a + 8 * MT * kRowBytes + warp * meta_blocks(p.block_shift) * 128;
  const char* weights = reinterpret_cast<const char*>(p.weights + pair * x.chunks * 256) + lane * 16;

  const auto issue = [&](int64_t chunk) {
    if (active && chunk < range.end) {
      char* to = ring + chunk % kW4Stages * 1024;
      copy_async(to, weights + chunk * 1024);
      copy_async(to + 512, weights + chunk * 1024 + 512);
    }
    commit();  // an empty group, too: the waiting counts them
  };
  load_piece<MT>(p, x, range.begin, pair, a, meta);
  commit();
  for (int i = 0; i < kW4Stages - 1; ++i) issue(range.begin + i);
  wait_but<kW4Stages - 1>();
  __syncthreads();

  float acc[2][MT][4] = {}, part[2][MT][4] = {};
  int64_t piece = range.begin;
  for (int64_t chunk = range.begin; chunk < range.end; ++chunk) {
    if (chunk - piece == kW4PieceChunks) {
      __syncthreads();
      piece = chunk;
      load_piece<MT>(p, x, piece, pair, a, meta);
      commit();
      wait_but<0>();
      __syncthreads();
    }
    wait_but<kW4Stages - 2>();
    const char* at = ring + chunk % kW4Stages * 1024;
    const uint4 w[2] = {*reinterpret_cast<const uint4*>(at), *reinterpret_cast<const uint4*>(at + 512)};
    issue(chunk + kW4Stages - 1);
    const char* rows = a + g * kRowBytes + (chunk - piece) * kW4ChunkK * 2 + t * 16;
    const int64_t block0 = (piece * kW4ChunkK) >> p.block_shift;
    uint2 scales[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      uint4 b[MT];
#pragma unroll
      for (int mt = 0; mt < MT; ++mt) b[mt] = *reinterpret_cast<const uint4*>(rows + mt * 8 * kRowBytes + h * 64);
      if (h == 0 || kFold == 32) {
        const int64_t block = ((chunk * kW4ChunkK + h * 32) >> p.block_shift) - block0;
#pragma unroll
        for (int tile = 0; tile < 2; ++tile)
          scales[tile] = *reinterpret_cast<const uint2*>(meta + block * 128 + tile * 64 + g * 8);
      }
#pragma unroll
      for (int tile = 0; tile < 2; ++tile) {
        const uint32_t z0 = w4_zero(scales[tile].x), z8 = w4_zero(scales[tile].y);
        uint32_t r[4];
        D::dequantise(h ? w[tile].z : w[tile].x, z0, z8, r);
#pragma unroll
        for (int mt = 0; mt < MT; ++mt) mma<D>(part[tile][mt], r, b[mt].x, b[mt].y);
        D::dequantise(h ? w[tile].w : w[tile].y, z0, z8, r);
#pragma unroll
        for (int mt = 0; mt < MT; ++mt) mma<D>(part[tile][mt], r, b[mt].z, b[mt].w);
      }
      if (h == 1 || kFold == 32) fold<MT>(acc, part, scales);
    }
  }
  wait_but<0>();
  __syncthreads();
  finish<D, MT>(p, acc, reinterpret_cast<float*>(shared));
}

template <class D, int MT>
void run(const W4A16& p, const W4Schedule& s, void* stream) {
  const int64_t columns = s.warps * kW4PairN, groups = (p.n + columns - 1) / columns, z = (p.m + 8 * MT - 1) / (8 * MT);
  check(groups <= 65535 && z <= 65535, "w4a16: n ", p.n, ", m ", p.m);
  const Launch l{dim3(static_cast<unsigned>(s.split), static_cast<unsigned>(groups), static_cast<unsigned>(z)),
                 dim3(static_cast<unsigned>(s.warps * 32)), shared_bytes(s.warps, 8 * MT, p.block_shift),
                 static_cast<unsigned>(s.split), stream};
  launch(p.block_shift == 5 ? w4a16_kernel<D, MT, 32> : w4a16_kernel<D, MT, 64>, p, l, "w4a16: m ", p.m, ", n ", p.n,
         ", k ", p.k, ", block ", 1 << p.block_shift, p.bf16 ? ", bf16" : ", f16");
}

}  // namespace

void w4a16(const W4A16& p, void* stream) {
  check(p.m >= 0 && p.n > 0 && p.k > 0 && p.k % 8 == 0 && p.block_shift >= 5 && p.block_shift < 31, "w4a16: m ", p.m,
        ", n ", p.n, ", k ", p.k, ", block 2^", p.block_shift, "; needed: k a multiple of 8, blocks from 32 on");
  const uintptr_t all =
      reinterpret_cast<uintptr_t>(p.a) | reinterpret_cast<uintptr_t>(p.weights) | reinterpret_cast<uintptr_t>(p.meta);
  check(all % 16 == 0, "w4a16: addresses of A and the weights must be multiples of 16");
  W4Schedule s = w4_schedule(p.n, p.k);
  if (p.warps) s.warps = p.warps;
  if (p.split) s.split = p.split;
  const bool known = (s.warps == 1 || s.warps == 2 || s.warps == 4) && s.split >= 1 && s.split <= 8;
  check(known, "w4a16: ", s.warps, " warps, split ", s.split, "; needed: 1, 2 or 4, 1 to 8");
  if (p.m == 0) return;
  if (p.bf16)
    p.m <= 8 ? run<W4BFloat, 1>(p, s, stream) : run<W4BFloat, 2>(p, s, stream);
  else
    p.m <= 8 ? run<W4Half, 1>(p, s, stream) : run<W4Half, 2>(p, s, stream);
}

}  // namespace fi
