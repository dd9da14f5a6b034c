// SPDX-License-Identifier: Apache-2.0
// What of w4a16.cuh runs on the host: reordering, the schedule, and the kernel's arithmetic for tests.
#include <algorithm>
#include <vector>

#include "kernels/nbits/w4a16.cuh"
#include "kernels/nbits/w4a16_bits.cuh"

namespace fi {

// A wave of blocks takes about as long as its chunks and 8 more, for the first loads and the sums; three blocks of four
// warps fit an SM's shared memory. m is not asked: see w4a16.cuh.
W4Schedule w4_schedule(int64_t n, int64_t k) {
  const W4Extents x = w4_extents(n, k, 5);
  W4Schedule best{4, 1};
  int64_t least = INT64_MAX;
  for (const int warps : {4, 2})
    for (const int split : {1, 2, 4, 8}) {
      if (split > 1 && x.chunks / split < 4) continue;
      const int64_t blocks = (x.pairs + warps - 1) / warps * split, slots = 132 * (12 / warps);
      const int64_t time = (blocks + slots - 1) / slots * ((x.chunks + split - 1) / split + 8);
      if (time < least) least = time, best = {warps, split};
    }
  return best;
}

namespace {

// f(q's byte, its shift, q[n, k]'s place) for all weights.
template <class F>
void each_weight(int64_t n, int64_t k, int block_shift, F f) {
  const W4Extents x = w4_extents(n, k, block_shift);
  const int64_t row = (((k + (int64_t{1} << block_shift) - 1) >> block_shift) << block_shift) / 2;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < k; ++j) f(i * row + j / 2, static_cast<int>(j % 2 * 4), w4_place(x, i, j));
}

uint32_t bits_of(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  return bits;
}

}  // namespace

void w4_shuffle(int64_t n, int64_t k, int block_shift, const uint8_t* q, uint32_t* weights) {
  std::fill_n(weights, w4_extents(n, k, block_shift).weight_words(), 0u);
  each_weight(n, k, block_shift, [&](int64_t byte, int shift, W4Place to) {
    weights[to.word] |= static_cast<uint32_t>(q[byte] >> shift & 15) << to.shift;
  });
}

void w4_unshuffle(int64_t n, int64_t k, int block_shift, const uint32_t* weights, uint8_t* q) {
  const int64_t blocks = (k + (int64_t{1} << block_shift) - 1) >> block_shift;
  std::fill_n(q, n * (blocks << block_shift) / 2, uint8_t{0});
  each_weight(n, k, block_shift, [&](int64_t byte, int shift, W4Place from) {
    q[byte] = static_cast<uint8_t>(q[byte] | (weights[from.word] >> from.shift & 15) << shift);
  });
}

void w4_shuffle_meta(int64_t n, int64_t k, int block_shift, const float* scales, const uint8_t* zeros, uint32_t* meta) {
  const W4Extents x = w4_extents(n, k, block_shift);
  const int64_t blocks = (k + (int64_t{1} << block_shift) - 1) >> block_shift;
  std::fill_n(meta, x.meta_words(), 8u);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t b = 0; b < blocks; ++b) {
      const uint32_t bits = bits_of(scales[i * blocks + b]);
      // To the nearest; what would become infinity does not.
      const uint32_t rounded = (bits & 0x7fffffff) < 0x7f7ffff8 ? bits + 8 : bits;
      const uint32_t zero = zeros ? zeros[i * ((blocks + 1) / 2) + b / 2] >> (b % 2 * 4) & 15 : 8;
      meta[w4_meta_place(x, i, b)] = (rounded & ~15u) | zero;
    }
}

namespace {

// One warp's sums over a range of k for 8 rows of A, as lanes hold them: acc[tile][lane][4].
template <class D>
struct Warp {
  const W4A16& p;
  const W4Extents x;
  int64_t pair, token0;
  float acc[2][32][4] = {}, part[2][32][4] = {};

  float a(int64_t token, int64_t k) const {
    return token < p.m && k < p.k ? static_cast<const float*>(p.a)[token * p.k + k] : 0.0f;
  }
  const uint32_t* meta(int tile, int64_t block, int g) const {
    return p.meta + ((pair * x.blocks + block) * 2 + tile) * 16 + 2 * g;
  }
  void product(int64_t chunk, int tile, int s, int64_t block) {
    float rows[16][16] = {}, columns[16][8] = {};
    for (int lane = 0; lane < 32; ++lane) {
      const int g = lane / 4, t = lane % 4;
      const uint32_t word = p.weights[((pair * x.chunks + chunk) * 2 + tile) * 128 + lane * 4 + s];
      const uint32_t* m = meta(tile, block, g);
      uint32_t r[4];
      D::dequantise(word, w4_zero(m[0]), w4_zero(m[1]), r);
      for (int i = 0; i < 4; ++i)
        for (int e = 0; e < 2; ++e) rows[w4_row(g, i)][2 * t + e + 8 * (i / 2)] = D::value(r[i], e);
      for (int j = 0; j < 4; ++j)
        columns[2 * t + j % 2 + 8 * (j / 2)][g] = a(token0 + g, chunk * kW4ChunkK + w4_k(t, s, j));
    }
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < 4; ++i)
        for (int k = 0; k < 16; ++k)
          part[tile][lane][i] += rows[lane / 4 + i / 2 * 8][k] * columns[k][lane % 4 * 2 + i % 2];
  }
  void fold(int tile, int64_t block) {
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < 4; ++i) {
        acc[tile][lane][i] += w4_scale(meta(tile, block, lane / 4)[i / 2]) * part[tile][lane][i];
        part[tile][lane][i] = 0;
      }
  }
  void run(W4Range range) {
    const bool each_half = p.block_shift == 5;
    for (int64_t chunk = range.begin; chunk < range.end; ++chunk)
      for (int tile = 0; tile < 2; ++tile)
        for (int h = 0; h < 2; ++h) {
          const int64_t block = (chunk * kW4ChunkK + h * 32) >> p.block_shift;
          product(chunk, tile, 2 * h, block);
          product(chunk, tile, 2 * h + 1, block);
          if (h == 1 || each_half) fold(tile, block);
        }
  }
};

template <class D>
void on_host(const W4A16& p) {
  const W4Extents x = w4_extents(p.n, p.k, p.block_shift);
  const int split = p.split ? p.split : w4_schedule(p.n, p.k).split;
  for (int64_t token0 = 0; token0 < p.m; token0 += 8)
    for (int64_t pair = 0; pair < x.pairs; ++pair) {
      std::vector<float> sums(8 * kW4PairN, 0.0f);
      for (int rank = 0; rank < split; ++rank) {
        Warp<D> warp{p, x, pair, token0};
        warp.run(w4_range(x.chunks, split, rank));
        for (int lane = 0; lane < 32; ++lane)
          for (int i = 0; i < 8; ++i)
            sums[(lane % 4 * 2 + i % 2) * kW4PairN + i / 4 * 16 + lane / 4 + i % 4 / 2 * 8] +=
                warp.acc[i / 4][lane][i % 4];
      }
      for (int64_t i = 0; i < 8 * kW4PairN; ++i) {
        const int64_t token = token0 + i / kW4PairN, n = pair * kW4PairN + i % kW4PairN;
        if (token >= p.m || n >= p.n) continue;
        static_cast<float*>(p.y)[token * p.n + n] = sums[i] + (p.bias ? static_cast<const float*>(p.bias)[n] : 0.0f);
      }
    }
}

}  // namespace

void w4a16_on_host(const W4A16& p) { p.bf16 ? on_host<W4BFloat>(p) : on_host<W4Half>(p); }

}  // namespace fi
