// SPDX-License-Identifier: Apache-2.0
// The driver: tables of row pointers, panels, parts. All arithmetic on data is in the GEMM microkernel.
#include "kernels/conv/conv.h"

#include <algorithm>
#include <cstring>

#include "kernels/conv/row_table.h"

namespace fi {
namespace {

// Products per microkernel call when a panel serves many rows: 1024 x 64 floats are a quarter of a 1 MiB L2.
constexpr int64_t kDepth = 1024;

int64_t zero_floats(const ConvF32& p) { return std::max(p.pixel_floats, p.k); }

// Bytes of one part's scratch: the table, output rows, the line of zeros. Whole pairs of lines, so that parts share
// none.
size_t part_bytes(const ConvF32& p) {
  const int64_t bytes = row_table_bytes(p.g, p.block) + p.block * 8 + zero_floats(p) * 4;
  return static_cast<size_t>((bytes + 127) / 128 * 128);
}

struct Bound {
  const float *x, *w, *bias, *residual;
  float* y;
};

// One part's work.
class Part {
 public:
  Part(const ConvF32& p, const Bound& b, char* scratch)
      : p_(p),
        b_(b),
        c_rows_(reinterpret_cast<float**>(scratch + row_table_bytes(p.g, p.block))),
        zeros_(reinterpret_cast<float*>(c_rows_ + p.block)),
        table_(p.g, p.transposed, p.pixel_floats, p.block, b.x, zeros_, scratch),
        panels_{p.g.taps(), p.k, p.out_channels / p.groups, p.kernel->nr} {
    std::memset(zeros_, 0, static_cast<size_t>(zero_floats(p)) * 4);
  }

  // Output pixels [begin, end) of the whole batch, output channels [c0, c1) of each group.
  void run(int64_t begin, int64_t end, int64_t c0, int64_t c1) {
    table_.each_block(begin, end, [&] {
      for (int64_t group = 0; group < p_.groups; ++group)
        for (int64_t i = 0; i < panel_count(panels_); ++i) panel(group, i, c0, c1);
    });
  }

 private:
  void panel(int64_t group, int64_t i, int64_t c0, int64_t c1) {
    const int64_t begin = i * panels_.nr;
    c0 = std::max(c0, begin);
    c1 = std::min(c1, begin + panel_cols(panels_, i));
    if (c0 >= c1) return;
    const int64_t channel = group * panels_.n + c0, pixel = table_.pixels()[0];
    GemmTile t;
    t.a_tap = p_.block;
    t.rows = table_.rows();
    t.cols = c1 - c0;
    t.ldb = panel_width(panels_, i);
    t.ldc = p_.y_pixel;
    t.ld_residual = p_.residual_pixel;
    t.bias = b_.bias ? b_.bias + channel : nullptr;
    t.epilogue = p_.epilogue;
    if (p_.transposed) {
      for (int64_t r = 0; r < t.rows; ++r) c_rows_[r] = b_.y + table_.pixels()[r] * p_.y_pixel + channel;
      t.c_rows = c_rows_;
    } else {
      t.c = b_.y + pixel * p_.y_pixel + channel;
      if (b_.residual) t.residual = b_.residual + pixel * p_.residual_pixel + channel;
    }
    const float* weights = b_.w + group * packed_floats(panels_) + panel_offset(panels_, i) +
                           table_.first_tap() * p_.k * t.ldb + (c0 - begin);
    reduce(t, weights, group * p_.k);
  }

  // Cuts the reduction where the panel would not stay in L2 from one tile of rows to the next.
  void reduce(GemmTile& t, const float* weights, int64_t a_offset) {
    const int64_t taps = table_.taps(), all = taps * p_.k;
    const bool cut = all > kDepth * 3 / 2 && t.rows > p_.kernel->mr;
    const int64_t depth = cut ? kDepth : std::max<int64_t>(all, 1);
    const int64_t step = std::max<int64_t>(1, p_.k > 0 ? depth / p_.k : taps);
    if (all == 0) {
      t.taps = 0;
      t.a = table_.table();
      t.b = weights;
      return p_.kernel->run(t);
    }
    for (int64_t tap = 0; tap < taps; tap += step) {
      t.a = table_.table() + tap * p_.block;
      t.taps = std::min(step, taps - tap);
      for (int64_t k = 0; k < p_.k; k += t.k) {
        t.k = step > 1 ? p_.k : std::min(depth, p_.k - k);
        t.a_offset = a_offset + k;
        t.b = weights + (tap * p_.k + k) * t.ldb;
        t.accumulate = tap + k > 0;
        t.partial = tap + t.taps < taps || k + t.k < p_.k;
        // The rest of the panel or the next one. A single row tile cannot get ahead of itself.
        t.ahead = t.rows > p_.kernel->mr ? t.taps * t.k * t.ldb * static_cast<int64_t>(sizeof(float)) : 0;
        p_.kernel->run(t);
      }
    }
  }

  const ConvF32& p_;
  Bound b_;
  float **c_rows_, *zeros_;
  RowTable<float> table_;
  GemmPanels panels_;
};

}  // namespace

double conv_f32_prepare(ConvF32& p) {
  const int64_t pixels = p.batch * p.g.out_pixels();
  p.block = conv_block(p.g, p.kernel->mr);
  if (p.y_pixel == 0) p.y_pixel = p.out_channels;
  if (p.residual_pixel == 0) p.residual_pixel = p.out_channels;
  // With few pixels every core would stream all weights from memory.
  p.split_channels = !p.transposed && p.groups == 1 && p.g.out_pixels() <= 64 && pixels < 256 && p.out_channels >= 64;
  const double macs = static_cast<double>(p.transposed ? p.batch * p.g.in_pixels() : pixels) *
                      static_cast<double>(p.g.taps() * p.k) * static_cast<double>(p.out_channels);
  return macs / 32 + static_cast<double>(pixels) * static_cast<double>(p.g.taps() + p.out_channels) / 8;
}

size_t conv_f32_scratch(const ConvF32& p, int parts) { return part_bytes(p) * static_cast<size_t>(parts); }

Status conv_f32_step(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const ConvF32*>(params);
  const Bound b{static_cast<const float*>(args[0]), static_cast<const float*>(args[1]),
                static_cast<const float*>(args[2]), static_cast<const float*>(args[3]), static_cast<float*>(args[4])};
  const int64_t pixels = p.batch * p.g.out_pixels(), columns = p.out_channels / p.groups;
  if (pixels == 0 || columns == 0) return Status::ok;
  Part work(p, b, static_cast<char*>(args[5]) + part_bytes(p) * static_cast<size_t>(part));
  if (p.split_channels) {
    const auto [c0, c1] = part_of(columns, part, parts, 16);
    work.run(0, pixels, c0, c1);
  } else {
    const auto [begin, end] = part_of(pixels, part, parts, p.kernel->mr);
    work.run(begin, end, 0, columns);
  }
  return Status::ok;
}

Status conv_pad_step(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const ConvPad*>(params);
  const auto* x = static_cast<const float*>(args[0]);
  auto* out = static_cast<float*>(args[1]);
  const Geometry& g = p.g;
  const int64_t row_floats = p.width() * p.channels;
  const auto [begin, end] = part_of(p.batch * p.depth() * p.height(), part, parts);
  for (int64_t row = begin; row < end; ++row) {
    const int64_t h = row % p.height() - g.pad[1], d = row / p.height() % p.depth() - g.pad[0];
    const int64_t n = row / p.height() / p.depth();
    float* y = out + row * row_floats;
    if (h < 0 || h >= g.in[1] || d < 0 || d >= g.in[0]) {
      std::memset(y, 0, static_cast<size_t>(row_floats) * 4);
      continue;
    }
    const int64_t left = g.pad[2] * p.channels, middle = g.in[2] * p.channels;
    std::memset(y, 0, static_cast<size_t>(left) * 4);
    std::memset(y + left + middle, 0, static_cast<size_t>(row_floats - left - middle) * 4);
    const int64_t first = (d * g.in[1] + h) * g.in[2];
    const bool last = p.from_channel == 1;
    const float* from = x + n * g.in_pixels() * (last ? p.from_pixel : p.channels) + first * p.from_pixel;
    y += left;
    if (last && p.from_pixel == p.channels) {
      std::memcpy(y, from, static_cast<size_t>(middle) * 4);
    } else {
      for (int64_t c = 0; c < p.channels; ++c)
        for (int64_t w = 0; w < g.in[2]; ++w) y[w * p.channels + c] = from[c * p.from_channel + w * p.from_pixel];
    }
  }
  return Status::ok;
}

}  // namespace fi
