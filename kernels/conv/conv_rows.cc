// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv/conv_rows.h"

#include <algorithm>
#include <cstring>

namespace fi {
namespace {

constexpr int64_t kMaxTaps = 64;
// A slab and the output rows made from it share a 1 MiB L2 with the weights.
constexpr int64_t kSlabFloats = 32 * 1024;
// Rows shorter than this leave too much of a tile of 14 or 16 pixels empty; fewer rows do not split well.
constexpr int64_t kLeastWidth = 24, kLeastHeight = 8;
// Weights in floats: they pass by once per row of pixels and must stay in L2.
constexpr int64_t kMostWeights = 64 * 1024;

int64_t slab_rows(const ConvRows& p, int64_t band) {
  return (band - 1) * p.g.stride[1] + (p.g.kernel[1] - 1) * p.g.dilation[1] + 1;
}
int64_t part_floats(const ConvRows& p) {
  const int64_t floats = p.stem ? slab_rows(p, p.band) * p.pitch : p.in_channels;
  return (floats + 31) / 32 * 32;
}

class Part {
 public:
  Part(const ConvRows& p, void* const* args, float* scratch)
      : p_(p),
        x_(static_cast<const float*>(args[0])),
        w_(static_cast<const float*>(args[1])),
        residual_(static_cast<const float*>(args[3])),
        bias_(static_cast<const float*>(args[2])),
        y_(static_cast<float*>(args[4])),
        scratch_(scratch),
        panels_{p.g.taps(), p.in_channels, p.out_channels, p.kernel->nr} {
    tile_.a = taps_;
    tile_.a_tap = 1;
    tile_.ldc = p.y_pixel;
    tile_.ld_residual = p.residual_pixel;
    tile_.epilogue = p.epilogue;
  }

  // Output rows [begin, end) of the whole batch.
  void run(int64_t begin, int64_t end) {
    if (p_.blocks) {
      for (int64_t row = begin; row < end; ++row) block_row(row / p_.g.in[1], row % p_.g.in[1]);
      return;
    }
    if (!p_.stem) {
      std::memset(scratch_, 0, static_cast<size_t>(p_.in_channels) * 4);
      for (int64_t row = begin; row < end; ++row) narrow_row(row / p_.g.out[1], row % p_.g.out[1]);
      return;
    }
    for (int64_t row = begin; row < end;) {
      const int64_t n = row / p_.g.out[1], h = row % p_.g.out[1];
      const int64_t rows = std::min({p_.band, end - row, p_.g.out[1] - h});
      for (int64_t r = 0; r < slab_rows(p_, rows); ++r)
        fill(scratch_ + r * p_.pitch, n, h * p_.g.stride[1] - p_.g.pad[1] + r);
      for (int64_t r = 0; r < rows; ++r) stem_row(n, h + r, scratch_ + r * p_.g.stride[1] * p_.pitch);
      row += rows;
    }
  }

 private:
  // Input row h between its padding.
  void fill(float* to, int64_t n, int64_t h) const {
    const Geometry& g = p_.g;
    const int64_t c = p_.in_channels, left = g.pad[2] * c;
    const int64_t seen = (g.out[2] - 1) * g.stride[2] + g.kernel[2] - g.pad[2];
    const int64_t count = h < 0 || h >= g.in[1] ? 0 : std::clamp<int64_t>(seen, 0, g.in[2]);
    std::memset(to, 0, static_cast<size_t>(count ? left : p_.pitch) * 4);
    if (count == 0) return;
    std::memset(to + left + count * c, 0, static_cast<size_t>(p_.pitch - left - count * c) * 4);
    to += left;
    const float* from = x_ + n * g.in_pixels() * (p_.x_channel == 1 ? p_.x_pixel : c) + h * g.in[2] * p_.x_pixel;
    if (p_.x_channel == 1 && p_.x_pixel == c) {
      std::memcpy(to, from, static_cast<size_t>(count * c) * 4);
    } else if (p_.x_pixel == 1) {
      p_.kernel->interleave(from, p_.x_channel, c, count, to);
    } else {
      for (int64_t w = 0; w < count; ++w, from += p_.x_pixel)
        for (int64_t i = 0; i < c; ++i) *to++ = from[i * p_.x_channel];
    }
  }

  void stem_row(int64_t n, int64_t h, const float* slab) {
    for (int64_t t = 0; t < p_.g.kernel[1]; ++t) taps_[t] = slab + t * p_.g.dilation[1] * p_.pitch;
    tile_.taps = p_.g.kernel[1];
    tile_.k = p_.g.kernel[2] * p_.in_channels;
    tile_.a_row = p_.g.stride[2] * p_.in_channels;
    pixels(n, h, 0, p_.g.out[2], 0);
  }

  void narrow_row(int64_t n, int64_t h) {
    const Geometry& g = p_.g;
    const Taps rows = inside(g, 1, h);
    tile_.taps = (rows.end - rows.begin) * g.kernel[2];
    tile_.k = p_.in_channels;
    tile_.a_row = g.stride[2] * p_.x_pixel;
    // Columns [lo, hi) see all taps of a kernel row.
    const int64_t reach = g.in[2] + g.pad[2] - (g.kernel[2] - 1) * g.dilation[2];
    const int64_t lo = std::min(g.out[2], g.pad[2] > 0 ? (g.pad[2] + g.stride[2] - 1) / g.stride[2] : 0);
    const int64_t hi = std::clamp(reach > 0 ? (reach + g.stride[2] - 1) / g.stride[2] : 0, lo, g.out[2]);
    for (int64_t w = 0; w < g.out[2];) {
      const int64_t count = w == lo && hi > lo ? hi - lo : 1;
      bind_taps(n, h, w, rows);
      pixels(n, h, w, count, rows.begin * g.kernel[2]);
      w += count;
    }
  }

  // Input row h of a transposed convolution.
  void block_row(int64_t n, int64_t h) {
    const Geometry& g = p_.g;
    taps_[0] = x_ + (n * g.in[1] + h) * g.in[2] * p_.x_pixel;
    tile_.taps = 1;
    tile_.k = p_.in_channels;
    tile_.a_row = p_.x_pixel;
    tile_.ldc = g.stride[2] * p_.y_pixel;
    for (int64_t kh = 0; kh < g.kernel[1]; ++kh)
      for (int64_t kw = 0; kw < g.kernel[2]; ++kw) pixels(n, h * g.stride[1] + kh, kw, g.in[2], kh * g.kernel[2] + kw);
  }

  void bind_taps(int64_t n, int64_t h, int64_t w, const Taps& rows) {
    const Geometry& g = p_.g;
    const float** to = taps_;
    for (int64_t kh = rows.begin; kh < rows.end; ++kh) {
      const int64_t ih = h * g.stride[1] - g.pad[1] + kh * g.dilation[1];
      const float* line = x_ + (n * g.in[1] + ih) * g.in[2] * p_.x_pixel;
      for (int64_t kw = 0; kw < g.kernel[2]; ++kw) {
        const int64_t iw = w * g.stride[2] - g.pad[2] + kw * g.dilation[2];
        *to++ = iw >= 0 && iw < g.in[2] ? line + iw * p_.x_pixel : scratch_;
      }
    }
  }

  // `count` pixels from (h, w) on, from the taps that are bound; they begin at tap `first` of the weights.
  void pixels(int64_t n, int64_t h, int64_t w, int64_t count, int64_t first) {
    const int64_t pixel = (n * p_.g.out[1] + h) * p_.g.out[2] + w;
    tile_.rows = count;
    for (int64_t i = 0; i < panel_count(panels_); ++i) {
      const int64_t channel = i * panels_.nr;
      tile_.cols = panel_cols(panels_, i);
      tile_.ldb = panel_width(panels_, i);
      tile_.b = w_ + panel_offset(panels_, i) + first * p_.in_channels * tile_.ldb;
      tile_.c = y_ + pixel * p_.y_pixel + channel;
      tile_.bias = bias_ ? bias_ + channel : nullptr;
      tile_.residual = residual_ ? residual_ + pixel * p_.residual_pixel + channel : nullptr;
      p_.kernel->run_rows(tile_);
    }
  }

  const ConvRows& p_;
  const float *x_, *w_, *residual_, *bias_;
  float *y_, *scratch_;
  GemmPanels panels_;
  GemmTile tile_;
  const float* taps_[kMaxTaps];
};

bool flat(const Geometry& g) { return g.kernel[0] == 1 && g.in[0] == 1 && g.out[0] == 1 && g.pad[0] == 0; }

}  // namespace

bool conv_rows_stem(const Geometry& g, int64_t in_channels, int64_t out_channels) {
  if (!flat(g) || g.kernel[1] > kMaxTaps || g.dilation[2] != 1 || g.pad[1] < 0 || g.pad[2] < 0) return false;
  if (g.taps() * in_channels * ((out_channels + 15) / 16 * 16) > kMostWeights) return false;
  const int64_t pitch = ((g.out[2] - 1) * g.stride[2] + g.kernel[2]) * in_channels;
  return pitch * ((g.kernel[1] - 1) * g.dilation[1] + 1 + 4 * g.stride[1]) <= kSlabFloats;
}

bool conv_rows_narrow(const Geometry& g, int64_t in_channels, int64_t out_channels, const GemmF32& kernel) {
  if (!flat(g) || g.taps() > kMaxTaps || in_channels == 0) return false;
  return out_channels <= kernel.nr * 3 / 4 && g.out[2] >= kLeastWidth && g.out[1] >= kLeastHeight &&
         g.taps() * in_channels * ((out_channels + 15) / 16 * 16) <= kMostWeights;
}

bool conv_rows_blocks(const Geometry& g, int64_t in_channels, int64_t out_channels) {
  if (!flat(g) || g.stride[0] != 1 || g.in[2] < kLeastWidth || g.in[1] < kLeastHeight || in_channels == 0) return false;
  for (int a = 1; a < 3; ++a)
    if (g.kernel[a] != g.stride[a] || g.dilation[a] != 1 || g.pad[a] != 0 || g.out[a] != g.in[a] * g.stride[a])
      return false;
  return g.taps() * in_channels * ((out_channels + 15) / 16 * 16) <= kMostWeights;
}

double conv_rows_prepare(ConvRows& p) {
  if (p.y_pixel == 0) p.y_pixel = p.out_channels;
  if (p.residual_pixel == 0) p.residual_pixel = p.out_channels;
  if (p.stem) {
    p.pitch = (((p.g.out[2] - 1) * p.g.stride[2] + p.g.kernel[2]) * p.in_channels + 15) / 16 * 16;
    const int64_t more = kSlabFloats / std::max<int64_t>(1, p.pitch) - slab_rows(p, 1);
    p.band = std::clamp<int64_t>(more / p.g.stride[1] + 1, 1, std::max<int64_t>(1, p.g.out[1]));
  }
  const auto pixels = static_cast<double>(p.batch * (p.blocks ? p.g.in_pixels() : p.g.out_pixels()));
  const auto n = static_cast<double>(p.out_channels);
  return pixels * (static_cast<double>(p.g.taps() * p.in_channels) * n / 32 + n / 8);
}

size_t conv_rows_scratch(const ConvRows& p, int parts) { return static_cast<size_t>(part_floats(p) * parts) * 4; }

Status conv_rows_step(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const ConvRows*>(params);
  const auto [begin, end] = part_of(p.batch * (p.blocks ? p.g.in : p.g.out)[1], part, parts);
  if (begin < end) Part(p, args, static_cast<float*>(args[5]) + part_floats(p) * part).run(begin, end);
  return Status::ok;
}

}  // namespace fi
