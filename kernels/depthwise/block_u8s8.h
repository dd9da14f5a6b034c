// SPDX-License-Identifier: Apache-2.0
// What the depthwise kernels of bytes work on. For one input column, the bytes of four kernel rows are interleaved, so
// that one 32-bit lane holds a channel's four rows. A block is 4 * VI::W channels: four vectors q, whose lane l holds
// channel l / 4 * 16 + q * 4 + l % 4 (what unpacking within 128-bit lanes gives, and packing undoes).
#pragma once
#include "kernels/depthwise/depthwise_bytes.h"
#include "kernels/gemm/bytes.h"
#include "kernels/gemm/dots.h"
#include "kernels/gemm/narrow.h"

namespace fi::FI_ISA {

constexpr int kByteBlock = 4 * VI::W;
constexpr int kByteGroups = 2;  // of four kernel rows

FI_INLINE VI load_bytes(const uint8_t* p, int n) {
#if defined(__AVX512F__)
  if (n == kByteBlock) return {_mm512_loadu_si512(p)};
  return {_mm512_maskz_loadu_epi8((uint64_t{1} << n) - 1, p)};
#else
  if (n == kByteBlock) return load(reinterpret_cast<const int32_t*>(p));
  alignas(64) uint8_t e[kByteBlock] = {};
  std::memcpy(e, p, static_cast<size_t>(n));
  return load(reinterpret_cast<const int32_t*>(e));
#endif
}

FI_INLINE void interleave_rows(const VI (&r)[4], VI (&q)[4]) {
#if defined(__AVX512F__)
  const __m512i a = _mm512_unpacklo_epi8(r[0].v, r[1].v), b = _mm512_unpackhi_epi8(r[0].v, r[1].v);
  const __m512i c = _mm512_unpacklo_epi8(r[2].v, r[3].v), d = _mm512_unpackhi_epi8(r[2].v, r[3].v);
  q[0].v = _mm512_unpacklo_epi16(a, c), q[1].v = _mm512_unpackhi_epi16(a, c);
  q[2].v = _mm512_unpacklo_epi16(b, d), q[3].v = _mm512_unpackhi_epi16(b, d);
#elif defined(__AVX2__)
  const __m256i a = _mm256_unpacklo_epi8(r[0].v, r[1].v), b = _mm256_unpackhi_epi8(r[0].v, r[1].v);
  const __m256i c = _mm256_unpacklo_epi8(r[2].v, r[3].v), d = _mm256_unpackhi_epi8(r[2].v, r[3].v);
  q[0].v = _mm256_unpacklo_epi16(a, c), q[1].v = _mm256_unpackhi_epi16(a, c);
  q[2].v = _mm256_unpacklo_epi16(b, d), q[3].v = _mm256_unpackhi_epi16(b, d);
#else
  uint8_t e[4][16], out[4][16];
  for (int i = 0; i < 4; ++i) std::memcpy(e[i], &r[i].v, 16);
  for (int c = 0; c < 16; ++c)
    for (int i = 0; i < 4; ++i) out[c / 4][c % 4 * 4 + i] = e[i][c];
  for (int i = 0; i < 4; ++i) std::memcpy(&q[i].v, out[i], 16);
#endif
}

// Values in [-128, 255] of the four vectors, as bytes in the order of the channels.
FI_INLINE void store_block(uint8_t* p, const VI (&q)[4], int n) {
#if defined(__AVX512F__)
  const __m512i mask = _mm512_set1_epi16(255);
  const __m512i a = _mm512_and_si512(_mm512_packs_epi32(q[0].v, q[1].v), mask);
  const __m512i b = _mm512_and_si512(_mm512_packs_epi32(q[2].v, q[3].v), mask);
  const __m512i bytes = _mm512_packus_epi16(a, b);
  if (n == kByteBlock)
    _mm512_storeu_si512(p, bytes);
  else
    _mm512_mask_storeu_epi8(p, (uint64_t{1} << n) - 1, bytes);
#else
  alignas(64) int32_t e[4][VI::W];
  for (int i = 0; i < 4; ++i) store(e[i], q[i]);
  for (int c = 0; c < n; ++c) p[c] = static_cast<uint8_t>(e[c % 16 / 4][c / 16 * 4 + c % 4]);
#endif
}

FI_INLINE int64_t block_channel(int q, int lane) { return lane / 4 * 16 + q * 4 + lane % 4; }

// A block of channels of one run: what its sums begin with and are multiplied by, in the order of the vectors.
struct ByteBlock {
  const int8_t* w;              // [groups][kernel width][4 q][VI::W][4]
  int64_t first = 0, taps = 0;  // channel; vectors quadruples: groups * kernel width
  int n = 0;
  bool narrow = false;  // see kernels/gemm/narrow.h
  alignas(64) int32_t start[kByteBlock];
  alignas(64) float scale[kByteBlock];
};

FI_INLINE void prepare_block(ByteBlock& b, const DepthwiseBytes& p, void* const* args, int64_t index, int groups) {
  b.first = index * kByteBlock;
  b.n = static_cast<int>(p.channels - b.first < kByteBlock ? p.channels - b.first : kByteBlock);
  b.taps = groups * p.g.kernel[2];
  b.w = static_cast<const int8_t*>(args[1]) + index * b.taps * kByteBlock * 4;
  const int32_t zero = *static_cast<const int32_t*>(args[2]);
  const auto* bias = static_cast<const int32_t*>(args[3]);
  const auto* scale = static_cast<const float*>(args[4]);
  const auto ones = BestDot::split_a(set1i(0x01010101));
  for (int q = 0; q < 4; ++q) {
    VI sum = set1i(0);
    for (int64_t t = 0; t < b.taps; ++t)
      sum = BestDot::dot(sum, ones,
                         BestDot::split_b(load(reinterpret_cast<const int32_t*>(b.w + (t * 4 + q) * kByteBlock))));
    sum = set1i(0) - sum * set1i(zero);
    store(b.start + q * VI::W, sum);
    for (int lane = 0; lane < VI::W; lane += 4) {
      const int64_t c = block_channel(q, lane);
      const int real = static_cast<int>(b.n - c < 0 ? 0 : b.n - c < 4 ? b.n - c : 4);
      for (int i = 0; i < 4; ++i) {
        b.start[q * VI::W + lane + i] += i < real && bias ? bias[b.first + c + i] : 0;
        b.scale[q * VI::W + lane + i] = i < real ? scale[b.first + c + i] : 0.f;
      }
    }
    b.narrow = (q == 0 || b.narrow) && narrowable(load(b.scale + q * VI::W));
  }
}

// The line of the input under kernel row r of an output row of the flattened batch; null: padding.
FI_INLINE const uint8_t* input_line(const DepthwiseBytes& p, const void* x, int64_t row, int r) {
  const Geometry& g = p.g;
  const int64_t oh = row % g.out[1], od = row / g.out[1] % g.out[0], n = row / g.out[1] / g.out[0];
  const int64_t id = od * g.stride[0] - g.pad[0] + r / g.kernel[1] * g.dilation[0];
  const int64_t ih = oh * g.stride[1] - g.pad[1] + r % g.kernel[1] * g.dilation[1];
  if (id < 0 || id >= g.in[0] || ih < 0 || ih >= g.in[1]) return nullptr;
  return static_cast<const uint8_t*>(x) + ((n * g.in[0] + id) * g.in[1] + ih) * g.in[2] * p.channels;
}

}  // namespace fi::FI_ISA
