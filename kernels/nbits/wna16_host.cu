// SPDX-License-Identifier: Apache-2.0
// What of wna16.cuh runs on the host: reordering, the schedule, and the kernel's arithmetic for tests.
#include <algorithm>
#include <vector>

#include "csrc/base/error.h"
#include "kernels/nbits/wna16.cuh"
#include "kernels/nbits/wna16_bits.cuh"

namespace fi {

// In KiB of weights an SM reads: the fullest SM's blocks, at less than full speed where they have less than 40 KiB in
// flight, a wave's first loads, and the sums, which come from all ranks. m is not asked: see wna16.cuh.
WnSchedule wn_schedule(int64_t n, int64_t k, int bits) {
  const WnExtents x = wn_extents(n, k, bits, 5);
  WnSchedule best{4, 1};
  int64_t least = INT64_MAX;
  for (const int warps : {4, 2})
    for (const int split : {1, 2, 4, 8}) {
      if (split > 1 && x.chunks / split < 4) continue;
      const int64_t blocks = (x.pairs + warps - 1) / warps * split, most = (blocks + 131) / 132, room = 16 / warps;
      const int64_t each = warps * ((x.chunks + split - 1) / split) * (bits / 4), waves = (most + room - 1) / room;
      const int64_t asked = (most < room ? most : room) * warps * 7, flight = asked < 40 ? asked : 40;
      const int64_t time = most * each * 40 / flight + 16 * waves + 2 * split;
      if (time < least) least = time, best = {warps, split};
    }
  return best;
}

namespace {

// f(q's byte, its shift, q[n, k]'s place) for all weights.
template <class F>
void each_weight(int64_t n, int64_t k, int bits, int block_shift, F f) {
  const WnExtents x = wn_extents(n, k, bits, block_shift);
  const int64_t row = (((k + (int64_t{1} << block_shift) - 1) >> block_shift) << block_shift) * bits / 8;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < k; ++j) f(i * row + j * bits / 8, static_cast<int>(j * bits % 8), wn_place(x, i, j));
}

uint32_t bits_of(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  return bits;
}

}  // namespace

void wn_shuffle(int64_t n, int64_t k, int bits, int block_shift, const uint8_t* q, uint32_t* weights) {
  const uint32_t all = (1u << bits) - 1;
  std::fill_n(weights, wn_extents(n, k, bits, block_shift).weight_words(), 0u);
  each_weight(n, k, bits, block_shift, [&](int64_t byte, int shift, WnPlace to) {
    weights[to.word] |= (static_cast<uint32_t>(q[byte]) >> shift & all) << to.shift;
  });
}

void wn_unshuffle(int64_t n, int64_t k, int bits, int block_shift, const uint32_t* weights, uint8_t* q) {
  const uint32_t all = (1u << bits) - 1;
  const int64_t blocks = (k + (int64_t{1} << block_shift) - 1) >> block_shift;
  std::fill_n(q, n * (blocks << block_shift) * bits / 8, uint8_t{0});
  each_weight(n, k, bits, block_shift, [&](int64_t byte, int shift, WnPlace from) {
    q[byte] = static_cast<uint8_t>(q[byte] | (weights[from.word] >> from.shift & all) << shift);
  });
}

void wn_shuffle_meta(int64_t n, int64_t k, int bits, int block_shift, const float* scales, const uint8_t* zeros,
                     uint32_t* meta) {
  const WnExtents x = wn_extents(n, k, bits, block_shift);
  const int64_t blocks = (k + (int64_t{1} << block_shift) - 1) >> block_shift, row = (blocks * bits + 7) / 8;
  const uint32_t all = (1u << bits) - 1, half = 1u << (bits - 1);
  std::fill_n(meta, x.meta_words(), half);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t b = 0; b < blocks; ++b) {
      const uint32_t given = bits_of(scales[i * blocks + b]);
      // To the nearest; what would become infinity does not.
      const uint32_t rounded = (given & 0x7fffffff) < 0x7f800000 - half ? given + half : given;
      const uint32_t zero = zeros ? zeros[i * row + b * bits / 8] >> (b * bits % 8) & all : half;
      meta[wn_meta_place(x, i, b)] = (rounded & ~all) | zero;
    }
}

namespace {

// One warp's sums over a range of k for 8 rows of A, as lanes hold them: acc[tile][lane][4].
template <class D, int kBits>
struct Warp {
  const WnA16& p;
  const WnExtents x;
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
      const int word = wn_word(kBits, s);
      const uint32_t* words = p.weights + (((pair * x.chunks + chunk) * 2 + tile) * (kBits / 4) + word / 4) * 128;
      const uint32_t* m = meta(tile, block, g);
      uint32_t r[4];
      wn_dequantise<kBits, D>(words + lane * 4 + word % 4, wn_zero<kBits>(m[0]), wn_zero<kBits>(m[1]), r);
      for (int i = 0; i < 4; ++i)
        for (int e = 0; e < 2; ++e) rows[wn_row(g, i)][2 * t + e + 8 * (i / 2)] = D::value(r[i], e);
      for (int j = 0; j < 4; ++j)
        columns[2 * t + j % 2 + 8 * (j / 2)][g] = a(token0 + g, chunk * kWnChunkK + wn_k(t, s, j));
    }
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < 4; ++i)
        for (int k = 0; k < 16; ++k)
          part[tile][lane][i] += rows[lane / 4 + i / 2 * 8][k] * columns[k][lane % 4 * 2 + i % 2];
  }
  void fold(int tile, int64_t block) {
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < 4; ++i) {
        acc[tile][lane][i] += wn_scale<kBits>(meta(tile, block, lane / 4)[i / 2]) * part[tile][lane][i];
        part[tile][lane][i] = 0;
      }
  }
  void run(WnRange range) {
    const bool each_half = p.block_shift == 5;
    for (int64_t chunk = range.begin; chunk < range.end; ++chunk)
      for (int tile = 0; tile < 2; ++tile)
        for (int h = 0; h < 2; ++h) {
          const int64_t block = (chunk * kWnChunkK + h * 32) >> p.block_shift;
          product(chunk, tile, 2 * h, block);
          product(chunk, tile, 2 * h + 1, block);
          if (h == 1 || each_half) fold(tile, block);
        }
  }
};

template <class D, int kBits>
void on_host(const WnA16& p) {
  const WnExtents x = wn_extents(p.n, p.k, kBits, p.block_shift);
  const int split = p.split ? p.split : wn_schedule(p.n, p.k, kBits).split;
  for (int64_t token0 = 0; token0 < p.m; token0 += 8)
    for (int64_t pair = 0; pair < x.pairs; ++pair) {
      std::vector<float> sums(8 * kWnPairN, 0.0f);
      for (int rank = 0; rank < split; ++rank) {
        Warp<D, kBits> warp{p, x, pair, token0};
        warp.run(wn_range(x.chunks, split, rank));
        for (int lane = 0; lane < 32; ++lane)
          for (int i = 0; i < 8; ++i)
            sums[(lane % 4 * 2 + i % 2) * kWnPairN + i / 4 * 16 + lane / 4 + i % 4 / 2 * 8] +=
                warp.acc[i / 4][lane][i % 4];
      }
      for (int64_t i = 0; i < 8 * kWnPairN; ++i) {
        const int64_t token = token0 + i / kWnPairN, n = pair * kWnPairN + i % kWnPairN;
        if (token >= p.m || n >= p.n) continue;
        static_cast<float*>(p.y)[token * p.n + n] = sums[i] + (p.bias ? static_cast<const float*>(p.bias)[n] : 0.0f);
      }
    }
}

}  // namespace

void wna16_on_host(const WnA16& p) {
  check(p.bits == 4 || p.bits == 8, "wna16: ", p.bits, " bits; needed: 4 or 8");
  if (p.bf16)
    p.bits == 4 ? on_host<WnBFloat, 4>(p) : on_host<WnBFloat, 8>(p);
  else
    p.bits == 4 ? on_host<WnHalf, 4>(p) : on_host<WnHalf, 8>(p);
}

}  // namespace fi
