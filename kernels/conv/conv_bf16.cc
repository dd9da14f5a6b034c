// SPDX-License-Identifier: Apache-2.0
// The driver: tables of row pointers, panels, parts. All arithmetic on data is in the GEMM microkernel.
#include "kernels/conv/conv_bf16.h"

#include <algorithm>
#include <cstring>

#include "kernels/conv/row_table.h"

namespace fi {
namespace {

int64_t zero_elements(const ConvBF16& p) { return std::max(p.pixel_elements, p.k); }

// The table, output rows, the line of zeros. Whole pairs of lines, so that parts share none.
size_t part_bytes(const ConvBF16& p) {
  const int64_t bytes = row_table_bytes(p.g, p.block) + p.block * 8 + zero_elements(p) * 2;
  return static_cast<size_t>((bytes + 127) / 128 * 128);
}

// One part's work.
class Part {
 public:
  Part(const ConvBF16& p, void* const* args, char* scratch)
      : p_(p),
        args_(args),
        c_rows_(reinterpret_cast<void**>(scratch + row_table_bytes(p.g, p.block))),
        zeros_(reinterpret_cast<uint16_t*>(c_rows_ + p.block)),
        table_(p.g, p.transposed, p.pixel_elements, p.block, static_cast<const uint16_t*>(args[0]), zeros_, scratch),
        panels_{p.g.taps(), p.k, p.out_channels / p.groups} {
    std::memset(zeros_, 0, static_cast<size_t>(zero_elements(p)) * 2);
  }

  // Output pixels [begin, end) of the whole batch, output channels [c0, c1) of each group.
  void run(int64_t begin, int64_t end, int64_t c0, int64_t c1) {
    table_.each_block(begin, end, [&] {
      for (int64_t group = 0; group < p_.groups; ++group)
        for (int64_t i = 0; i < panels_.count(); ++i) panel(group, i, c0, c1);
    });
  }

 private:
  void panel(int64_t group, int64_t i, int64_t c0, int64_t c1) {
    const int64_t begin = i * kBF16Panel;
    c0 = std::max(c0, begin);
    c1 = std::min(c1, begin + panels_.cols(i));
    if (c0 >= c1) return;
    const int64_t channel = group * panels_.n + c0;
    GemmBF16Tile t;
    t.a = table_.table();
    t.a_tap = p_.block;
    t.a_offset = group * p_.k;
    t.taps = p_.k > 0 ? table_.taps() : 0;
    t.k = p_.k;
    t.rows = table_.rows();
    t.cols = c1 - c0;
    t.width = panels_.width(i);
    t.b = static_cast<const uint16_t*>(args_[1]) + group * panels_.elements() + panels_.offset(i) +
          (table_.first_tap() * panels_.pairs() * t.width + (c0 - begin)) * 2;
    t.ldc = t.ld_residual = p_.out_channels;
    t.c_bf16 = p_.y_bf16;
    t.residual_bf16 = p_.residual_bf16;
    if (args_[2]) t.bias = static_cast<const float*>(args_[2]) + channel;
    t.epilogue = p_.epilogue;
    if (!p_.transposed && i + 1 < panels_.count() && c1 == begin + panels_.cols(i))
      t.ahead = panels_.taps * panels_.pairs() * panels_.width(i + 1) * 4;
    bind_output(t, channel);
    p_.kernel->run(t);
  }

  void bind_output(GemmBF16Tile& t, int64_t channel) {
    const int64_t size = p_.y_bf16 ? 2 : 4, first = table_.pixels()[0] * p_.out_channels + channel;
    char* y = static_cast<char*>(args_[4]);
    if (!p_.transposed) {
      t.c = y + first * size;
      if (args_[3]) t.residual = static_cast<const char*>(args_[3]) + first * (p_.residual_bf16 ? 2 : 4);
      return;
    }
    for (int64_t r = 0; r < t.rows; ++r) c_rows_[r] = y + (table_.pixels()[r] * p_.out_channels + channel) * size;
    t.c_rows = c_rows_;
  }

  const ConvBF16& p_;
  void* const* args_;
  void** c_rows_;
  uint16_t* zeros_;
  RowTable<uint16_t> table_;
  BF16Panels panels_;
};

}  // namespace

double conv_bf16_prepare(ConvBF16& p) {
  const int64_t pixels = p.batch * p.g.out_pixels();
  p.block = conv_block(p.g, p.kernel->mr);
  // With few pixels every core would stream all weights from memory.
  p.split_channels = !p.transposed && p.groups == 1 && p.g.out_pixels() <= 64 && pixels < 256 && p.out_channels >= 64;
  const double macs = static_cast<double>(p.transposed ? p.batch * p.g.in_pixels() : pixels) *
                      static_cast<double>(p.g.taps() * p.k) * static_cast<double>(p.out_channels);
  return macs / 64 + static_cast<double>(pixels) * static_cast<double>(p.g.taps() + p.out_channels) / 8;
}

size_t conv_bf16_scratch(const ConvBF16& p, int parts) { return part_bytes(p) * static_cast<size_t>(parts); }

Status conv_bf16_step(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const ConvBF16*>(params);
  const int64_t pixels = p.batch * p.g.out_pixels(), columns = p.out_channels / p.groups;
  if (pixels == 0 || columns == 0) return Status::ok;
  Part work(p, args, static_cast<char*>(args[5]) + part_bytes(p) * static_cast<size_t>(part));
  if (p.split_channels) {
    const auto [c0, c1] = part_of(columns, part, parts, 16);
    work.run(0, pixels, c0, c1);
  } else {
    const auto [begin, end] = part_of(pixels, part, parts, p.kernel->mr);
    work.run(begin, end, 0, columns);
  }
  return Status::ok;
}

namespace {

// y[i] = x[from + i] in bfloat16, i < n.
void copy_elements(const ConvPadBF16& p, const void* x, int64_t from, uint16_t* y, int64_t n) {
  if (p.x_bf16)
    std::memcpy(y, static_cast<const uint16_t*>(x) + from, static_cast<size_t>(n) * 2);
  else
    p.kernel->round(static_cast<const float*>(x) + from, y, n);
}

// One line of the image, whose first element is number `from` of X, into [W, C].
void pad_line(const ConvPadBF16& p, const void* x, int64_t from, uint16_t* y) {
  const int64_t width = p.pad.g.in[2], channels = p.pad.channels;
  if (p.pad.from_channel == 1) return copy_elements(p, x, from, y, width * channels);
  constexpr int64_t kRun = 256;  // pixels that are rounded at a time
  if (!p.x_bf16 && p.pad.from_pixel == 1 && channels <= 4) {
    float pixels[kRun * 4];
    for (int64_t w = 0; w < width; w += kRun) {
      const int64_t count = std::min(kRun, width - w);
      p.interleave(static_cast<const float*>(x) + from + w, p.pad.from_channel, channels, count, pixels);
      p.kernel->round(pixels, y + w * channels, count * channels);
    }
    return;
  }
  uint16_t run[kRun];
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t w0 = 0; w0 < width; w0 += kRun) {
      const int64_t count = std::min(kRun, width - w0);
      copy_elements(p, x, from + c * p.pad.from_channel + w0, run, count);
      for (int64_t w = 0; w < count; ++w) y[(w0 + w) * channels + c] = run[w];
    }
}

}  // namespace

Status conv_pad_bf16_step(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const ConvPadBF16*>(params);
  const ConvPad& pad = p.pad;
  const Geometry& g = pad.g;
  auto* out = static_cast<uint16_t*>(args[1]);
  const int64_t row_elements = pad.width() * pad.channels;
  const int64_t left = g.pad[2] * pad.channels, middle = g.in[2] * pad.channels;
  const auto [begin, end] = part_of(pad.batch * pad.depth() * pad.height(), part, parts);
  for (int64_t row = begin; row < end; ++row) {
    const int64_t h = row % pad.height() - g.pad[1], d = row / pad.height() % pad.depth() - g.pad[0];
    const int64_t n = row / pad.height() / pad.depth();
    uint16_t* y = out + row * row_elements;
    if (h < 0 || h >= g.in[1] || d < 0 || d >= g.in[0]) {
      std::memset(y, 0, static_cast<size_t>(row_elements) * 2);
      continue;
    }
    std::memset(y, 0, static_cast<size_t>(left) * 2);
    std::memset(y + left + middle, 0, static_cast<size_t>(row_elements - left - middle) * 2);
    pad_line(p, args[0], n * g.in_pixels() * pad.channels + (d * g.in[1] + h) * g.in[2] * pad.from_pixel, y + left);
  }
  return Status::ok;
}

}  // namespace fi
