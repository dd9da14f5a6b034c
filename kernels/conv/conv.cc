// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv/conv.h"

#include <algorithm>
#include <cstring>

namespace fi {
namespace {

constexpr int64_t kMaxBlock = 240;  // rows of a pointer table; a multiple of every variant's mr
// Bytes of a panel that stay in L2 while the row tiles of a block pass by.
constexpr int64_t kPanelBytes = 384 << 10;

int64_t taps_of(const ConvStep& q) {
  return q.merged_width ? q.window.kernel[0] * q.window.kernel[1] : q.window.taps();
}
int64_t depth_of(const ConvStep& q) {
  return q.merged_width ? q.window.kernel[2] * q.channels : q.channels / q.groups;
}
int64_t table_floats(const ConvStep& q) { return (q.block * taps_of(q) * 2 + 15) / 16 * 16; }

// Fills a[t * block + r] for output pixels [first, first + count) of the flattened batch.
void point_rows(const ConvStep& q, const float* x, const float* zeros, int64_t first, int64_t count, const float** a) {
  const Geometry& g = q.window;
  const int64_t pixels = g.out_pixels(), kw = q.merged_width ? 1 : g.kernel[2];
  for (int64_t r = 0; r < count; ++r) {
    const int64_t p = first + r, image = p / pixels, at = p % pixels;
    const int64_t ow = at % g.out[2], oh = at / g.out[2] % g.out[1], od = at / g.out[2] / g.out[1];
    const float* base = x + image * g.in_pixels() * q.channels;
    const float** out = a + r;
    const int64_t left = ow * g.stride[2] - g.pad[2];
    for (int64_t kd = 0; kd < g.kernel[0]; ++kd) {
      const int64_t z = od * g.stride[0] - g.pad[0] + kd * g.dilation[0];
      for (int64_t kh = 0; kh < g.kernel[1]; ++kh) {
        const int64_t y = oh * g.stride[1] - g.pad[1] + kh * g.dilation[1];
        const bool row_inside = z >= 0 && z < g.in[0] && y >= 0 && y < g.in[1];
        const float* row = base + (z * g.in[1] + y) * g.in[2] * q.channels;
        for (int64_t k = 0; k < kw; ++k, out += q.block) {
          const int64_t w = left + k * g.dilation[2];
          *out = row_inside && w >= 0 && w < g.in[2] ? row + w * q.channels : zeros;
        }
      }
    }
  }
}

// Where everything is for one part.
struct Operands {
  const float *x, *w, *bias, *residual;
  float* y;
  const float** table;
  const float* zeros;
};

// All taps of one panel for one block of pixels; a panel beyond kPanelBytes is cut at taps, the sums waiting in Y.
void run_panel(const ConvStep& q, const Operands& o, const GemmPanels& panels, int64_t group, int64_t i, int64_t first,
               int64_t count) {
  const int64_t taps = panels.taps, width = panel_width(panels, i);
  const int64_t column = group * panels.n + i * panels.nr;
  GemmTile tile;
  tile.a_tap = q.block;
  tile.a_offset = group * (q.channels / q.groups);
  tile.ldb = width;
  tile.k = panels.k;
  tile.rows = count;
  tile.cols = panel_cols(panels, i);
  tile.c = o.y + first * q.out_channels + column;
  tile.ldc = tile.ld_residual = q.out_channels;
  tile.residual = o.residual ? o.residual + first * q.out_channels + column : nullptr;
  tile.bias = o.bias ? o.bias + column : nullptr;
  tile.epilogue = q.epilogue;
  const float* b = o.w + group * packed_floats(panels) + panel_offset(panels, i);
  const int64_t fitting = std::max<int64_t>(1, kPanelBytes / (panels.k * width * 4));
  const int64_t chunk = count > 2 * q.kernel->mr && fitting < taps ? fitting : taps;
  for (int64_t t = 0; t < taps; t += chunk) {
    tile.a = o.table + t * q.block;
    tile.b = b + t * panels.k * width;
    tile.taps = std::min(chunk, taps - t);
    tile.accumulate = t > 0;
    tile.partial = t + tile.taps < taps;
    q.kernel->run(tile);
  }
}

}  // namespace

GemmPanels conv_panels(const ConvStep& q) {
  return {taps_of(q), depth_of(q), q.out_channels / q.groups, q.kernel->nr};
}

double conv_prepare(ConvStep& q) {
  const double pixels = static_cast<double>(q.batch * q.window.out_pixels());
  const double depth = static_cast<double>(q.window.taps() * (q.channels / q.groups));
  const double work = pixels * static_cast<double>(q.out_channels) * depth / 32;
  // Small maps with many weights: each core should stream only half of them (KERNELS.md §0b: at 7x7 and below).
  q.split_columns = q.window.out_pixels() <= 64 && q.out_channels / q.groups >= 2 * q.kernel->nr;
  // Balanced blocks of at most kMaxBlock pixels whose table stays within L1.
  const int64_t most = std::clamp<int64_t>(2048 / taps_of(q) / q.kernel->mr * q.kernel->mr, 4 * q.kernel->mr, kMaxBlock);
  q.block = std::min<int64_t>(most, std::max<int64_t>(1, q.batch * q.window.out_pixels()));
  return work + pixels * depth / 64;
}

size_t conv_scratch(const ConvStep& q, int parts) {
  return static_cast<size_t>(parts * (table_floats(q) + (q.channels + 31) / 16 * 16)) * sizeof(float);
}

Status conv_step(const void* params, void* const* args, int part, int parts) {
  const auto& q = *static_cast<const ConvStep*>(params);
  float* scratch = static_cast<float*>(args[5]) + conv_scratch(q, 1) / sizeof(float) * part;
  float* zeros = scratch + table_floats(q);
  std::memset(zeros, 0, static_cast<size_t>(q.channels) * sizeof(float));
  const Operands o{static_cast<const float*>(args[0]), static_cast<const float*>(args[1]),
                   static_cast<const float*>(args[2]), static_cast<const float*>(args[3]),
                   static_cast<float*>(args[4]),       reinterpret_cast<const float**>(scratch), zeros};
  const GemmPanels panels = conv_panels(q);
  const int64_t pixels = q.batch * q.window.out_pixels(), per_group = panel_count(panels);
  const Range rows = q.split_columns ? Range{0, pixels} : part_of(pixels, part, parts, q.kernel->mr);
  const Range share = q.split_columns ? part_of(q.groups * per_group, part, parts) : Range{0, q.groups * per_group};
  if (share.begin == share.end) return Status::ok;
  for (int64_t first = rows.begin; first < rows.end; first += q.block) {
    const int64_t count = std::min(q.block, rows.end - first);
    point_rows(q, o.x, zeros, first, count, o.table);
    for (int64_t i = share.begin; i < share.end; ++i) run_panel(q, o, panels, i / per_group, i % per_group, first, count);
  }
  return Status::ok;
}

int64_t conv_packed_floats(int64_t groups, int64_t out_channels, int64_t group_channels, int64_t taps) {
  return groups * packed_floats({taps, group_channels, out_channels / groups, 16});
}

void conv_pack(const GemmF32& kernel, int64_t groups, int64_t out_channels, int64_t group_channels, int64_t taps,
               const float* w, float* packed) {
  const GemmPanels panels{taps, group_channels, out_channels / groups, kernel.nr};
  for (int64_t g = 0; g < groups; ++g)
    gemm_f32_pack(kernel, panels, w + g * panels.n * group_channels * taps, 1, taps, group_channels * taps,
                  packed + g * packed_floats(panels));
}

void conv_unpack(int nr, int64_t groups, int64_t out_channels, int64_t group_channels, int64_t taps, const float* packed,
                 float* w) {
  const GemmPanels panels{taps, group_channels, out_channels / groups, nr};
  for (int64_t g = 0; g < groups; ++g)
    gemm_f32_unpack(panels, packed + g * packed_floats(panels), w + g * panels.n * group_channels * taps, 1, taps,
                    group_channels * taps);
}

Status pad_image_step(const void* params, void* const* args, int part, int parts) {
  const auto& q = *static_cast<const PadImageStep*>(params);
  const Geometry& g = q.window;
  const auto* x = static_cast<const float*>(args[0]);
  auto* y = static_cast<float*>(args[1]);
  const int64_t rows[2] = {g.in[0] + g.pad[0] + g.pad_end[0], g.in[1] + g.pad[1] + g.pad_end[1]};
  const int64_t left = g.pad[2] * q.channels, middle = g.in[2] * q.channels, right = g.pad_end[2] * q.channels;
  const Range share = part_of(q.batch * rows[0] * rows[1], part, parts);
  for (int64_t i = share.begin; i < share.end; ++i) {
    const int64_t h = i % rows[1] - g.pad[1], d = i / rows[1] % rows[0] - g.pad[0], n = i / rows[1] / rows[0];
    float* out = y + i * (left + middle + right);
    if (d < 0 || d >= g.in[0] || h < 0 || h >= g.in[1]) {
      std::memset(out, 0, static_cast<size_t>(left + middle + right) * sizeof(float));
      continue;
    }
    std::memset(out, 0, static_cast<size_t>(left) * sizeof(float));
    std::memcpy(out + left, x + ((n * g.in[0] + d) * g.in[1] + h) * middle, static_cast<size_t>(middle) * sizeof(float));
    std::memset(out + left + middle, 0, static_cast<size_t>(right) * sizeof(float));
  }
  return Status::ok;
}

}  // namespace fi
