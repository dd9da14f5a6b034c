// SPDX-License-Identifier: Apache-2.0
// Depthwise convolution of bytes by dot products of four, any window: each interleaved column serves every output
// pixel of its tile that sees it.
#pragma once
#include "kernels/depthwise/rolling_u8s8.h"

namespace fi::FI_ISA {

// What leaves are bytes, with or without a residual, sums or floats.
FI_INLINE void finish_block(const DepthwiseBytes& p, void* const* args, const ByteBlock& b, VI (&acc)[4],
                            int64_t pixel) {
  const int64_t at = pixel * p.channels + b.first;
  if (!is_byte(p.output)) {
    alignas(64) int32_t e[4][VI::W];
    for (int q = 0; q < 4; ++q) {
      if (p.output == QuantizedOutput::s32)
        store(e[q], acc[q]);
      else
        store(reinterpret_cast<float*>(e[q]), to_float(acc[q]) * load(b.scale + q * VI::W));
    }
    auto* y = static_cast<int32_t*>(args[5]) + at;
    for (int c = 0; c < b.n; ++c) y[c] = e[c % 16 / 4][c / 16 * 4 + c % 4];
    return;
  }
  const ByteRange last(p.q.zero, p.q.lo, p.q.hi), inner(p.q.c_zero, p.q.c_lo, p.q.c_hi);
  VI r[4];
  const auto* residual = static_cast<const uint8_t*>(args[6]);
  if (residual) {
    // Interleaved with zeros, a byte is alone in its lane.
    const VI rows[4] = {load_bytes(residual + at, b.n), set1i(0), set1i(0), set1i(0)};
    interleave_rows(rows, r);
  }
  for (int q = 0; q < 4; ++q) {
    VF v = to_float(acc[q]) * load(b.scale + q * VI::W);
    if (residual) {
      if (p.q.inner) v = to_float(inner.around_zero(v)) * set1(p.q.c_factor);
      if (p.q.signed_residual) r[q] = sra<24>(shl<24>(r[q]));
      v = v + (to_float(r[q]) - set1(static_cast<float>(p.q.r_zero))) * set1(p.q.r_factor);
    }
    acc[q] = last.around_zero(v) + last.zero;
  }
  store_block(static_cast<uint8_t*>(args[5]) + at, acc, b.n);
}

// An output row seen through one block: line r is the input row under kernel row r, or null (padding).
struct ByteRows {
  const uint8_t* line[4 * kByteGroups];
  const uint8_t* padding;
  int rows, groups;
};

template <bool kInside>
FI_INLINE void load_column(const DepthwiseBytes& p, const ByteRows& in, int group, int64_t iw, int n, VI flip,
                           typename BestDot::A4 (&v)[4]) {
  VI rows[4], q[4];
  const bool inside = kInside || (iw >= 0 && iw < p.g.in[2]);
  FI_UNROLL for (int i = 0; i < 4; ++i) {
    rows[i] = set1i(0);
    if (group * 4 + i >= in.rows) continue;
    const uint8_t* line = in.line[group * 4 + i];
    rows[i] = load_bytes(inside && line ? line + iw * p.channels : in.padding, n) ^ flip;
  }
  interleave_rows(rows, q);
  FI_UNROLL for (int i = 0; i < 4; ++i) v[i] = BestDot::split_a(q[i]);
}

// P output pixels of a row from ow on. KW 0: any width, dilation and stride, one pixel.
template <int KW, int S, int P, bool kInside>
FI_INLINE void byte_pixels(const DepthwiseBytes& p, void* const* args, const ByteBlock& b, const ByteRows& in, VI flip,
                           int64_t pixel, int64_t ow) {
  VI acc[P][4];
  FI_UNROLL for (int i = 0; i < P; ++i) { FI_UNROLL for (int q = 0; q < 4; ++q) acc[i][q] = load(b.start + q * VI::W); }
  const Geometry& g = p.g;
  const int64_t first = ow * g.stride[2] - g.pad[2];
  for (int group = 0; group < in.groups; ++group) {
    const int8_t* w = b.w + group * g.kernel[2] * 4 * kByteBlock;
    if constexpr (KW == 0) {
      for (int64_t k = 0; k < g.kernel[2]; ++k) {
        typename BestDot::A4 v[4];
        load_column<false>(p, in, group, first + k * g.dilation[2], b.n, flip, v);
        FI_UNROLL for (int q = 0; q < 4; ++q) acc[0][q] = BestDot::dot(
            acc[0][q], v[q], BestDot::split_b(load(reinterpret_cast<const int32_t*>(w + (k * 4 + q) * kByteBlock))));
      }
    } else {
      FI_UNROLL for (int j = 0; j < (P - 1) * S + KW; ++j) {
        typename BestDot::A4 v[4];
        load_column<kInside>(p, in, group, first + j, b.n, flip, v);
        FI_UNROLL for (int i = 0; i < P; ++i) {
          const int k = j - i * S;
          if (k < 0 || k >= KW) continue;
          FI_UNROLL for (int q = 0; q < 4; ++q) acc[i][q] = BestDot::dot(
              acc[i][q], v[q], BestDot::split_b(load(reinterpret_cast<const int32_t*>(w + (k * 4 + q) * kByteBlock))));
        }
      }
    }
  }
  for (int i = 0; i < P; ++i) finish_block(p, args, b, acc[i], pixel + i);
}

template <int KW, int S, int P>
FI_INLINE void byte_row(const DepthwiseBytes& p, void* const* args, const ByteBlock& b, const ByteRows& in, VI flip,
                        int64_t pixel) {
  const Geometry& g = p.g;
  int64_t ow = 0;
  if constexpr (KW != 0) {
    for (; ow + P <= g.out[2]; ow += P) {
      const int64_t first = ow * S - g.pad[2], last = first + (P - 1) * S + KW;
      if (first >= 0 && last <= g.in[2])
        byte_pixels<KW, S, P, true>(p, args, b, in, flip, pixel + ow, ow);
      else
        byte_pixels<KW, S, P, false>(p, args, b, in, flip, pixel + ow, ow);
    }
    for (; ow < g.out[2]; ++ow) byte_pixels<KW, S, 1, false>(p, args, b, in, flip, pixel + ow, ow);
  } else {
    for (; ow < g.out[2]; ++ow) byte_pixels<0, 1, 1, false>(p, args, b, in, flip, pixel + ow, ow);
  }
}

// A block of channels over output rows [begin, end) of the flattened batch.
template <int KW, int S, int P>
static void byte_rows(const DepthwiseBytes& p, void* const* args, const ByteBlock& b, const uint8_t* padding,
                      int64_t begin, int64_t end) {
  const Geometry& g = p.g;
  const VI flip = set1i(p.signed_x ? static_cast<int32_t>(0x80808080u) : 0);
  ByteRows in;
  in.rows = static_cast<int>(g.kernel[0] * g.kernel[1]);
  in.groups = (in.rows + 3) / 4;
  in.padding = padding;
  for (int64_t row = begin; row < end; ++row) {
    for (int r = 0; r < in.rows; ++r) {
      const uint8_t* line = input_line(p, args[0], row, r);
      in.line[r] = line ? line + b.first : nullptr;
    }
    byte_row<KW, S, P>(p, args, b, in, flip, row * g.out[2]);
  }
}

Status depthwise_u8s8(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const DepthwiseBytes*>(params);
  const Geometry& g = p.g;
  const int groups = static_cast<int>((g.kernel[0] * g.kernel[1] + 3) / 4);
  const int32_t zero = *static_cast<const int32_t*>(args[2]);
  uint8_t padding[kByteBlock];
  std::memset(padding, (p.signed_x ? zero ^ 0x80 : zero) & 0xff, kByteBlock);
  const auto [begin, end] = part_of(p.batch * g.out[0] * g.out[1], part, parts);
  const bool dense = g.dilation[2] == 1 && g.stride[2] <= 2;
  constexpr int kPixels = VI::W == 16 ? 4 : 2;
  ByteBlock b;
  for (int64_t i = 0; i * kByteBlock < p.channels && begin < end; ++i) {
    prepare_block(b, p, args, i, groups);
    if (can_roll(p, args[6]) && b.narrow)
      rolling_rows(p, args, b, padding, begin, end);
    else if (dense && g.kernel[2] == 3 && g.stride[2] == 1)
      byte_rows<3, 1, kPixels>(p, args, b, padding, begin, end);
    else if (dense && g.kernel[2] == 3)
      byte_rows<3, 2, kPixels>(p, args, b, padding, begin, end);
    else if (dense && g.kernel[2] == 5 && g.stride[2] == 1)
      byte_rows<5, 1, kPixels>(p, args, b, padding, begin, end);
    else if (dense && g.kernel[2] == 5)
      byte_rows<5, 2, kPixels>(p, args, b, padding, begin, end);
    else
      byte_rows<0, 1, 1>(p, args, b, padding, begin, end);
  }
  return Status::ok;
}

}  // namespace fi::FI_ISA
