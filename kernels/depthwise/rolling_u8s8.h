// SPDX-License-Identifier: Apache-2.0
// The 3x3 depthwise convolution of bytes where a dot product is one instruction: every input column is loaded and
// interleaved once per output row, and adds to the two or three outputs that see it while their sums wait in
// registers (with the block form of generic_u8s8.h each output row of 4 pixels loads 6 columns: MobileNetV2's
// 112x112x32 took 198 us on one core, 40 this way). Blocks of at most half a vector hold two output rows at once.
#pragma once
#include "kernels/depthwise/block_u8s8.h"
#include "kernels/gemm/narrow.h"

namespace fi::FI_ISA {

// Whether the step has the rolling form; its scales must also be narrowable.
FI_INLINE bool can_roll(const DepthwiseBytes& p, const void* residual) {
  const Geometry& g = p.g;
  return BestDot::wide && g.kernel[0] * g.kernel[1] == 3 && g.kernel[2] == 3 && g.dilation[2] == 1 &&
         g.stride[2] <= 2 && is_byte(p.output) && !residual;
}

#if defined(__AVX512VNNI__)
// One output row, or two: the input rows under the kernel rows, and what to go on by from pixel to pixel (0: padding).
struct RollingRows {
  const uint8_t* line[2][3];
  int64_t step[2][3];
  uint8_t* y[2];
};

template <bool kTwo, bool kFull>
FI_INLINE VI rolling_load(const uint8_t* a, const uint8_t* b, uint64_t mask) {
  if constexpr (kTwo) {
    const auto half = [mask](const uint8_t* p) __attribute__((always_inline)) {
      return kFull ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))
                   : _mm256_maskz_loadu_epi8(static_cast<__mmask32>(mask), p);
    };
    return {_mm512_inserti64x4(_mm512_castsi256_si512(half(a)), half(b), 1)};
  }
  return {kFull ? _mm512_loadu_si512(a) : _mm512_maskz_loadu_epi8(mask, a)};
}

template <bool kTwo, bool kFull>
FI_INLINE void rolling_store(RollingRows& r, VB b, uint64_t mask, int64_t pixel) {
  if constexpr (kTwo) {
    const __m256i half[2] = {_mm512_castsi512_si256(b.v), _mm512_extracti64x4_epi64(b.v, 1)};
    FI_UNROLL for (int i = 0; i < 2; ++i) {
      if constexpr (kFull)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(r.y[i]), half[i]);
      else
        _mm256_mask_storeu_epi8(r.y[i], static_cast<__mmask32>(mask), half[i]);
      r.y[i] += pixel;
    }
  } else {
    if constexpr (kFull)
      _mm512_storeu_si512(r.y[0], b.v);
    else
      _mm512_mask_storeu_epi8(r.y[0], mask, b.v);
    r.y[0] += pixel;
  }
}

template <int S, bool kTwo, bool kFull, bool kFlip>
static __attribute__((noinline)) void rolling_row(const DepthwiseBytes& p, const ByteBlock& b, RollingRows& r,
                                                  int32_t zero) {
  const Geometry& g = p.g;
  const int64_t width = g.in[2];
  const uint64_t mask = (uint64_t{1} << (b.n & 63)) - 1;
  const VI flip = set1i(static_cast<int32_t>(0x80808080u)), padding = set1i((zero & 0xff) * 0x01010101);
  const ByteNarrow narrow(p.q, p.output == QuantizedOutput::s8);
  VI w[3][4], now[4], next[4], v[4];
  FI_UNROLL for (int k = 0; k < 3; ++k) {
    FI_UNROLL for (int q = 0; q < 4; ++q) w[k][q] = load(reinterpret_cast<const int32_t*>(b.w) + (k * 4 + q) * VI::W);
  }
  int64_t at = -g.pad[2];
  const auto column = [&]() __attribute__((always_inline)) {
    if (static_cast<uint64_t>(at++) < static_cast<uint64_t>(width)) {
      VI rows[4];
      FI_UNROLL for (int i = 0; i < 3; ++i) {
        rows[i] = rolling_load<kTwo, kFull>(r.line[0][i], r.line[1][i], mask);
        if constexpr (kFlip) rows[i] = rows[i] ^ flip;
        r.line[0][i] += r.step[0][i];
        if constexpr (kTwo) r.line[1][i] += r.step[1][i];
      }
      rows[3] = set1i(0);
      interleave_rows(rows, v);
    } else {
      FI_UNROLL for (int q = 0; q < 4; ++q) v[q] = padding;
    }
  };
  const auto add = [&](VI(&sum)[4], int k) __attribute__((always_inline)) {
    FI_UNROLL for (int q = 0; q < 4; ++q) sum[q] = BestDot::dot(sum[q], v[q], w[k][q]);
  };
  const auto begin = [&](VI(&sum)[4]) __attribute__((always_inline)) {
    FI_UNROLL for (int q = 0; q < 4; ++q) sum[q] = load(b.start + q * VI::W);
    add(sum, 0);
  };
  const auto finish = [&]() __attribute__((always_inline)) {
    FI_UNROLL for (int q = 0; q < 4; ++q) now[q] = to_int(to_float(now[q]) * load(b.scale + q * VI::W));
    rolling_store<kTwo, kFull>(r, narrow.packed(now[0], now[1], now[2], now[3]), mask, p.channels);
  };
  column();
  begin(now);
  if constexpr (S == 1) {
    column();
    add(now, 1);
    begin(next);
    for (int64_t ow = 0; ow < g.out[2]; ++ow) {
      column();
      add(now, 2);
      finish();
      FI_UNROLL for (int q = 0; q < 4; ++q) now[q] = next[q];
      add(now, 1);
      begin(next);
    }
  } else {
    for (int64_t ow = 0; ow < g.out[2]; ++ow) {
      column();
      add(now, 1);
      column();
      add(now, 2);
      finish();
      begin(now);
    }
  }
}

template <bool kTwo, bool kFull, bool kFlip>
FI_INLINE void rolling_row(const DepthwiseBytes& p, const ByteBlock& b, RollingRows& r, int32_t zero) {
  if (p.g.stride[2] == 1)
    rolling_row<1, kTwo, kFull, kFlip>(p, b, r, zero);
  else
    rolling_row<2, kTwo, kFull, kFlip>(p, b, r, zero);
}

// A block of at most half a vector, with its channels in both halves.
struct TwoRowBlock {
  ByteBlock b;
  alignas(64) int8_t w[12 * kByteBlock];
  FI_INLINE_MEMBER explicit TwoRowBlock(const ByteBlock& one) : b(one) {
    constexpr size_t kHalf = VI::W * 2;  // bytes
    std::memcpy(w, one.w, sizeof w);
    for (int q = 0; q < 12; ++q) std::memcpy(w + q * kByteBlock + kHalf, w + q * kByteBlock, kHalf);
    for (int q = 0; q < 4; ++q) {
      std::memcpy(b.start + q * VI::W + VI::W / 2, b.start + q * VI::W, kHalf);
      std::memcpy(b.scale + q * VI::W + VI::W / 2, b.scale + q * VI::W, kHalf);
    }
    b.w = w;
  }
};

// A block of channels over output rows [begin, end) of the flattened batch.
static void rolling_rows(const DepthwiseBytes& p, void* const* args, const ByteBlock& one, const uint8_t* padding,
                         int64_t begin, int64_t end) {
  const bool two = one.n <= kByteBlock / 2, full = one.n == (two ? kByteBlock / 2 : kByteBlock);
  const int32_t zero = *static_cast<const int32_t*>(args[2]);
  const TwoRowBlock doubled(one);
  const ByteBlock& b = two ? doubled.b : one;
  const int step = two ? 2 : 1;
  for (int64_t row = begin; row < end; row += step) {
    RollingRows r;
    for (int i = 0; i < step; ++i) {
      const int64_t at = row + i < end ? row + i : row;  // an odd row is its own pair
      for (int k = 0; k < 3; ++k) {
        const uint8_t* line = input_line(p, args[0], at, k);
        r.line[i][k] = line ? line + b.first : padding;
        r.step[i][k] = line ? p.channels : 0;
      }
      r.y[i] = static_cast<uint8_t*>(args[5]) + at * p.g.out[2] * p.channels + b.first;
    }
    // Columns before the image are not loaded; a window that begins inside it (negative padding) skips some.
    if (p.g.pad[2] < 0)
      for (int i = 0; i < step; ++i)
        for (int k = 0; k < 3; ++k) r.line[i][k] -= p.g.pad[2] * r.step[i][k];
    switch (two << 2 | full << 1 | (p.signed_x ? 1 : 0)) {
      case 0:
        rolling_row<false, false, false>(p, b, r, zero);
        break;
      case 1:
        rolling_row<false, false, true>(p, b, r, zero);
        break;
      case 2:
        rolling_row<false, true, false>(p, b, r, zero);
        break;
      case 3:
        rolling_row<false, true, true>(p, b, r, zero);
        break;
      case 4:
        rolling_row<true, false, false>(p, b, r, zero);
        break;
      case 5:
        rolling_row<true, false, true>(p, b, r, zero);
        break;
      case 6:
        rolling_row<true, true, false>(p, b, r, zero);
        break;
      default:
        rolling_row<true, true, true>(p, b, r, zero);
    }
  }
}
#else
static void rolling_rows(const DepthwiseBytes&, void* const*, const ByteBlock&, const uint8_t*, int64_t, int64_t) {}
#endif

}  // namespace fi::FI_ISA
