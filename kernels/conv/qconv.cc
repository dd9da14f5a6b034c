// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv/qconv.h"

#include <cstring>

#include "kernels/conv/row_table.h"

namespace fi {
namespace {

// Bytes of one part's scratch: the table, row sums, a pixel of padding.
size_t part_bytes(const ConvU8S8& p) {
  const int64_t bytes = row_table_bytes(p.g, p.block) + p.block * 4 + p.in_channels;
  return static_cast<size_t>((bytes + 127) / 128 * 128);
}

struct Bound {
  const uint8_t* x;
  const char* w;
  const int32_t *x_zero, *w_zero, *bias;
  const float *scale, *column_scale;
  char* y;
};

class Part {
 public:
  Part(const ConvU8S8& p, const Bound& b, char* scratch)
      : p_(p),
        b_(b),
        sums_(reinterpret_cast<int32_t*>(scratch + row_table_bytes(p.g, p.block))),
        padding_(reinterpret_cast<uint8_t*>(sums_ + p.block)),
        table_(p.g, false, p.in_channels, p.block, b.x, padding_, scratch),
        panels_(conv_u8s8_panels(p.groups, p.out_channels, p.in_channels / p.groups, p.g.taps(), p.kernel->nr)) {
    const int raw = p.flip_x ? *b.x_zero ^ 0x80 : *b.x_zero;
    std::memset(padding_, raw & 0xff, static_cast<size_t>(p.in_channels));
  }

  void run(int64_t begin, int64_t end) {
    table_.each_block(begin, end, [&] {
      for (int64_t group = 0; group < p_.groups; ++group) {
        if (b_.w_zero) sum_rows(group);
        for (int64_t i = 0; i < panel_count(panels_); ++i) panel(group, i);
      }
    });
  }

 private:
  void sum_rows(int64_t group) {
    for (int64_t r = 0; r < table_.rows(); ++r) {
      uint32_t sum = 0;
      for (int64_t t = 0; t < panels_.taps; ++t)
        sum += static_cast<uint32_t>(
            sum_bytes(table_.table()[t * p_.block + r] + group * panels_.k, panels_.k, p_.flip_x));
      sums_[r] = static_cast<int32_t>(sum);
    }
  }

  void panel(int64_t group, int64_t i) {
    const int64_t channel = group * panels_.n + i * panels_.nr;
    const char* w = b_.w + group * packed_bytes(panels_);
    GemmU8S8Tile t;
    t.a = table_.table();
    t.a_tap = p_.block;
    t.a_offset = group * panels_.k;
    t.flip_a = p_.flip_x;
    t.b = reinterpret_cast<const int8_t*>(w + panel_offset(panels_, i));
    t.width = panel_width(panels_, i);
    t.taps = panels_.taps;
    t.k = panels_.k;
    t.rows = table_.rows();
    t.cols = panel_cols(panels_, i);
    t.a_zero = b_.x_zero;
    t.column_sum = reinterpret_cast<const int32_t*>(w) + i * panels_.nr;
    if (b_.w_zero) {
      t.b_zero = b_.w_zero + channel;
      t.row_sum = sums_;
    }
    t.bias = b_.bias ? b_.bias + channel : nullptr;
    t.output = p_.output;
    t.c = b_.y + (table_.pixels()[0] * p_.out_channels + channel) * static_cast<int64_t>(size_of(p_.output));
    t.ldc = p_.out_channels;
    t.row_scale = b_.scale;
    t.column_scale = b_.column_scale + channel;
    t.zero = p_.zero;
    p_.kernel->run(t);
  }

  const ConvU8S8& p_;
  Bound b_;
  int32_t* sums_;
  uint8_t* padding_;
  RowTable<uint8_t> table_;
  U8S8Panels panels_;
};

}  // namespace

double conv_u8s8_prepare(ConvU8S8& p) {
  p.block = conv_block(p.g, p.kernel->mr);
  const auto outputs = static_cast<double>(p.batch * p.g.out_pixels() * p.out_channels);
  return outputs * static_cast<double>(p.g.taps() * (p.in_channels / p.groups) + 16) / 128;
}

size_t conv_u8s8_scratch(const ConvU8S8& p, int parts) { return part_bytes(p) * static_cast<size_t>(parts); }

Status conv_u8s8_step(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const ConvU8S8*>(params);
  const Bound b{static_cast<const uint8_t*>(args[0]), static_cast<const char*>(args[1]),
                static_cast<const int32_t*>(args[2]), static_cast<const int32_t*>(args[3]),
                static_cast<const int32_t*>(args[4]), static_cast<const float*>(args[5]),
                static_cast<const float*>(args[6]),   static_cast<char*>(args[7])};
  const int64_t pixels = p.batch * p.g.out_pixels();
  if (pixels == 0 || p.out_channels == 0) return Status::ok;
  const auto [begin, end] = part_of(pixels, part, parts, p.kernel->mr);
  Part(p, b, static_cast<char*>(args[8]) + part_bytes(p) * static_cast<size_t>(part)).run(begin, end);
  return Status::ok;
}

U8S8Panels conv_u8s8_panels(int64_t groups, int64_t out_channels, int64_t group_channels, int64_t taps, int nr) {
  return {taps, group_channels, out_channels / groups, nr};
}

void conv_u8s8_pack(const U8S8Panels& p, int64_t groups, bool flip, const void* w, void* packed) {
  for (int64_t g = 0; g < groups; ++g)
    gemm_u8s8_pack(p, static_cast<const char*>(w) + g * p.n * p.k * p.taps, flip, 1, p.taps, p.k * p.taps,
                   static_cast<char*>(packed) + g * packed_bytes(p), 0, panel_count(p));
}

void conv_u8s8_unpack(const U8S8Panels& p, int64_t groups, bool flip, const void* packed, void* w) {
  for (int64_t g = 0; g < groups; ++g)
    gemm_u8s8_unpack(p, static_cast<const char*>(packed) + g * packed_bytes(p), flip, 1, p.taps, p.k * p.taps,
                     static_cast<char*>(w) + g * p.n * p.k * p.taps);
}

}  // namespace fi
