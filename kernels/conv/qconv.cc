// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv/qconv.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/conv/row_table.h"

namespace fi {
namespace {

U8S8Panels panels_of(const ConvU8S8& p) {
  const int64_t k = p.merged_width ? p.merged_width * p.in_channels : p.in_channels / p.groups;
  return conv_u8s8_panels(p.groups, p.out_channels, k, p.g.taps(), p.kernel->nr);
}

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
  const uint8_t* residual;
};

class Part {
 public:
  Part(const ConvU8S8& p, const Bound& b, char* scratch)
      : p_(p),
        b_(b),
        sums_(reinterpret_cast<int32_t*>(scratch + row_table_bytes(p.g, p.block))),
        padding_(reinterpret_cast<uint8_t*>(sums_ + p.block)),
        table_(p.g, false, p.in_channels, p.block, b.x, padding_, scratch),
        panels_(panels_of(p)) {
    const int raw = p.flip_x ? *b.x_zero ^ 0x80 : *b.x_zero;
    std::memset(padding_, raw & 0xff, static_cast<size_t>(p.in_channels));
  }

  // Output pixels [begin, end), panels [first, last) of all groups' panels.
  void run(int64_t begin, int64_t end, int64_t first, int64_t last) {
    const int64_t panels = panel_count(panels_);
    table_.each_block(begin, end, [&] {
      int64_t summed = -1;
      for (int64_t i = first; i < last; ++i) {
        const int64_t group = i / panels;
        if (b_.w_zero && group != summed) sum_rows(summed = group);
        panel(group, i % panels);
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
    t.over_read = p_.merged_width > 0;
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
    const int64_t at = table_.pixels()[0] * p_.out_channels + channel;
    t.c = b_.y + at * static_cast<int64_t>(size_of(p_.output));
    t.residual = b_.residual ? b_.residual + at : nullptr;
    t.ldc = p_.out_channels;
    t.row_scale = b_.scale;
    t.column_scale = b_.column_scale + channel;
    t.q = p_.q;
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
  const U8S8Panels panels = panels_of(p);
  const int64_t depth = panels.taps * panels.k, pixels = p.batch * p.g.out_pixels();
  const int64_t count = p.groups * panel_count(panels);
  // Where the weights outweigh the image, every core had better read its share of them only.
  p.by_panels = count % 2 == 0 && depth * p.out_channels > 4 * (p.batch * p.g.in_pixels() * p.in_channels + pixels);
  return static_cast<double>(pixels * p.out_channels) * static_cast<double>(depth + 16) / 128;
}

size_t conv_u8s8_scratch(const ConvU8S8& p, int parts) { return part_bytes(p) * static_cast<size_t>(parts); }

Status conv_u8s8_step(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const ConvU8S8*>(params);
  const Bound b{
      static_cast<const uint8_t*>(args[0]), static_cast<const char*>(args[1]),    static_cast<const int32_t*>(args[2]),
      static_cast<const int32_t*>(args[3]), static_cast<const int32_t*>(args[4]), static_cast<const float*>(args[5]),
      static_cast<const float*>(args[6]),   static_cast<char*>(args[7]),          static_cast<const uint8_t*>(args[8])};
  const int64_t pixels = p.batch * p.g.out_pixels();
  if (pixels == 0 || p.out_channels == 0) return Status::ok;
  const int64_t panels = p.groups * panel_count(panels_of(p));
  const Range rows = p.by_panels ? Range{0, pixels} : part_of(pixels, part, parts, p.kernel->mr);
  const Range columns = p.by_panels ? part_of(panels, part, parts) : Range{0, panels};
  Part(p, b, static_cast<char*>(args[9]) + part_bytes(p) * static_cast<size_t>(part))
      .run(rows.begin, rows.end, columns.begin, columns.end);
  return Status::ok;
}

bool can_merge_taps(const Geometry& g, int64_t groups, int64_t channels) {
  return groups == 1 && channels < 16 && g.kernel[2] > 1 && g.dilation[2] == 1 && g.pad[0] >= 0 && g.pad[1] >= 0 &&
         g.pad[2] >= 0;
}

namespace {
// The padded image holds every window, no more.
Geometry padded(const Geometry& g) {
  Geometry out = g;
  for (int a = 0; a < 3; ++a) {
    out.in[a] = (g.out[a] - 1) * g.stride[a] + (g.kernel[a] - 1) * g.dilation[a] + 1;
    out.pad[a] = out.pad_end[a] = 0;
  }
  return out;
}
}  // namespace

ConvU8S8 merge_taps(const ConvU8S8& p) {
  ConvU8S8 out = p;
  out.g = padded(p.g);
  out.g.kernel[2] = 1;
  out.merged_width = p.g.kernel[2];
  return out;
}

size_t padded_bytes(const PadBytes& p) {
  return static_cast<size_t>(p.batch * padded(p.g).in_pixels() * p.channels + 4);
}

Status pad_bytes_step(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const PadBytes*>(params);
  const Geometry& g = p.g;
  const Geometry to = padded(g);
  const int32_t zero = *static_cast<const int32_t*>(args[1]);
  const int raw = (p.flip_x ? zero ^ 0x80 : zero) & 0xff;
  const auto* x = static_cast<const uint8_t*>(args[0]);
  const int64_t line = to.in[2] * p.channels;
  const int64_t lead = std::min(to.in[2], g.pad[2]), inside = std::clamp<int64_t>(to.in[2] - lead, 0, g.in[2]);
  const auto [begin, end] = part_of(p.batch * to.in[0] * to.in[1], part, parts);
  for (int64_t row = begin; row < end; ++row) {
    auto* y = static_cast<uint8_t*>(args[2]) + row * line;
    const int64_t ih = row % to.in[1] - g.pad[1], id = row / to.in[1] % to.in[0] - g.pad[0];
    if (ih < 0 || ih >= g.in[1] || id < 0 || id >= g.in[0]) {
      std::memset(y, raw, static_cast<size_t>(line));
      continue;
    }
    const int64_t n = row / to.in[1] / to.in[0];
    std::memset(y, raw, static_cast<size_t>(lead * p.channels));
    std::memcpy(y + lead * p.channels, x + ((n * g.in[0] + id) * g.in[1] + ih) * g.in[2] * p.channels,
                static_cast<size_t>(inside * p.channels));
    std::memset(y + (lead + inside) * p.channels, raw, static_cast<size_t>((to.in[2] - lead - inside) * p.channels));
  }
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

// W [O][channels][rows][width] as [O][rows][width][channels], and back.
template <class F>
static void each_merged(const U8S8Panels& p, int64_t width, F f) {
  const int64_t channels = p.k / width;
  for (int64_t o = 0; o < p.n; ++o)
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t r = 0; r < p.taps; ++r)
        for (int64_t w = 0; w < width; ++w)
          f(((o * channels + c) * p.taps + r) * width + w, ((o * p.taps + r) * width + w) * channels + c);
}

void conv_u8s8_pack_merged(const U8S8Panels& p, int64_t width, bool flip, const void* w, void* packed) {
  std::vector<uint8_t> moved(static_cast<size_t>(p.n * p.taps * p.k));
  each_merged(p, width, [&](int64_t from, int64_t to) { moved[to] = static_cast<const uint8_t*>(w)[from]; });
  gemm_u8s8_pack(p, moved.data(), flip, p.k, 1, p.k * p.taps, packed, 0, panel_count(p));
}

void conv_u8s8_unpack_merged(const U8S8Panels& p, int64_t width, bool flip, const void* packed, void* w) {
  std::vector<uint8_t> moved(static_cast<size_t>(p.n * p.taps * p.k));
  gemm_u8s8_unpack(p, packed, flip, p.k, 1, p.k * p.taps, moved.data());
  each_merged(p, width, [&](int64_t to, int64_t from) { static_cast<uint8_t*>(w)[to] = moved[from]; });
}

}  // namespace fi
