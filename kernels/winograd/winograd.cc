// SPDX-License-Identifier: Apache-2.0
#include "kernels/winograd/winograd.h"

#include <algorithm>
#include <vector>

#include "kernels/winograd/points.h"

namespace fi {

#define FI_KERNEL(isa, m)                                                                                \
  namespace isa {                                                                                        \
  void winograd_input_##m(const float* const*, int64_t, float*, int64_t);                                \
  void winograd_output_##m(const float*, int64_t, int64_t, const float*, const Epilogue&, float* const*, \
                           const float* const*);                                                         \
  }
#include "kernels/winograd/kernels.inc"
#undef FI_KERNEL

const WinogradF32* winograd_f32(Isa isa, int m) {
  static const WinogradF32 rows[] = {
#define FI_KERNEL(isa, m) \
  {"winograd_f32_" #m "x" #m "_" #isa, Isa::isa, m, &isa::winograd_input_##m, &isa::winograd_output_##m},
#include "kernels/winograd/kernels.inc"
#undef FI_KERNEL
  };
  for (const WinogradF32& row : rows)
    if (row.isa <= isa && row.m == m) return &row;
  return nullptr;
}

namespace {

// The rows of G: row i evaluates the kernel's polynomial at point i, divided by Π (p_i - p_j).
template <int M>
std::vector<double> weight_transform() {
  constexpr int n = M + 2;
  double points[n - 1] = {0};
  for (int k = 0; k < WinogradPoints<M>::pairs; ++k) {
    points[1 + 2 * k] = WinogradPoints<M>::p[k];
    points[2 + 2 * k] = -WinogradPoints<M>::p[k];
  }
  std::vector<double> g(n * 3, 0);
  for (int i = 0; i < n - 1; ++i) {
    double scale = 1;
    for (int j = 0; j < n - 1; ++j)
      if (j != i) scale *= points[i] - points[j];
    for (int e = 0; e < 3; ++e) g[i * 3 + e] = (e == 0 ? 1 : e == 1 ? points[i] : points[i] * points[i]) / scale;
  }
  g[(n - 1) * 3 + 2] = 1;  // ∞
  return g;
}

template <int M>
void pack(const GemmF32& gemm, const float* w, int64_t channels, int64_t out_channels, float* packed) {
  constexpr int n = M + 2;
  const std::vector<double> g = weight_transform<M>();
  const GemmPanels panels = winograd_panels(M, gemm, channels, out_channels);
  std::fill(packed, packed + packed_floats(panels), 0.f);
  for (int64_t o = 0; o < out_channels; ++o) {
    const int64_t panel = o / panels.nr, width = panel_width(panels, panel);
    float* column = packed + panel_offset(panels, panel) + o % panels.nr;
    for (int64_t c = 0; c < channels; ++c) {
      const float* k = w + (o * channels + c) * 9;
      double half[n][3];
      for (int i = 0; i < n; ++i)
        for (int x = 0; x < 3; ++x) half[i][x] = g[i * 3] * k[x] + g[i * 3 + 1] * k[3 + x] + g[i * 3 + 2] * k[6 + x];
      for (int i = 0; i < n; ++i)
        for (int j = 0; j < n; ++j) {
          const double u = half[i][0] * g[j * 3] + half[i][1] * g[j * 3 + 1] + half[i][2] * g[j * 3 + 2];
          column[((i * n + j) * channels + c) * width] = static_cast<float>(u);
        }
    }
  }
}

int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }
constexpr int kMaxPoints = 64;  // (m + 2)² for m = 6

// The buffers of one part.
struct Workspace {
  float* v;            // [points][group][v_row]
  float* block;        // [points][group][nr]
  const float** rows;  // [group]: row pointers into V, relative to point 0
};

struct TileGrid {
  int64_t across, down, total;
  explicit TileGrid(const WinogradProblem& q)
      : across((q.out_w + q.kernel->m - 1) / q.kernel->m),
        down((q.out_h + q.kernel->m - 1) / q.kernel->m),
        total(q.batch * across * down) {}
};

void transform_in(const WinogradProblem& q, const TileGrid& grid, const float* x, int64_t tile, float* v) {
  const int m = q.kernel->m, n = m + 2;
  const int64_t image = tile / (grid.across * grid.down), at = tile % (grid.across * grid.down);
  const int64_t top = at / grid.across * m - q.pad_top, left = at % grid.across * m - q.pad_left;
  const float* pixels[kMaxPoints];
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < n; ++j) {
      const int64_t y = top + i, z = left + j;
      const bool inside = y >= 0 && y < q.in_h && z >= 0 && z < q.in_w;
      pixels[i * n + j] = inside ? x + ((image * q.in_h + y) * q.in_w + z) * q.channels : nullptr;
    }
  q.kernel->input(pixels, q.channels, v, q.v_plane);
}

void transform_out(const WinogradProblem& q, const TileGrid& grid, const float* block, int64_t tile, int64_t first,
                   int64_t cols, const float* bias, const float* residual, float* y) {
  const int m = q.kernel->m;
  const int64_t image = tile / (grid.across * grid.down), at = tile % (grid.across * grid.down);
  const int64_t top = at / grid.across * m, left = at % grid.across * m;
  float* rows[kMaxPoints];
  const float* residuals[kMaxPoints];
  for (int i = 0; i < m; ++i)
    for (int j = 0; j < m; ++j) {
      const bool inside = top + i < q.out_h && left + j < q.out_w;
      const int64_t offset = ((image * q.out_h + top + i) * q.out_w + left + j) * q.out_channels + first;
      rows[i * m + j] = inside ? y + offset : nullptr;
      residuals[i * m + j] = inside && residual ? residual + offset : nullptr;
    }
  q.kernel->output(block, q.block_plane, cols, bias ? bias + first : nullptr, q.epilogue, rows,
                   residual ? residuals : nullptr);
}

}  // namespace

GemmPanels winograd_panels(int m, const GemmF32& gemm, int64_t channels, int64_t out_channels) {
  return {static_cast<int64_t>(m + 2) * (m + 2), channels, out_channels, gemm.nr};
}

void winograd_pack(int m, const GemmF32& gemm, const float* weights, int64_t channels, int64_t out_channels,
                   float* packed) {
  if (m == 4) pack<4>(gemm, weights, channels, out_channels, packed);
}

size_t winograd_prepare(WinogradProblem& q, int parts) {
  const TileGrid grid(q);
  const int64_t points = (q.kernel->m + 2) * (q.kernel->m + 2), nr = q.gemm->nr;
  // V and the block fill about half of L2. Measured on Zen 5, any group of 12 to 144 tiles is within 10 %.
  const int64_t points_bytes = points * (round_up(q.channels, 16) + 16 + nr) * 4, mr = q.gemm->mr;
  const int64_t fitting = std::clamp<int64_t>(caches().l2 / 2 / points_bytes / mr, 2, 6) * mr;
  const int64_t share = q.split_channels ? grid.total : (grid.total + parts - 1) / parts;
  const int64_t groups = (share + fitting - 1) / fitting;
  q.group = round_up((share + groups - 1) / std::max<int64_t>(groups, 1), mr);
  // 16 floats beyond C keep the points' planes from falling on one another's cache sets.
  q.v_row = round_up(q.channels, 16) + 16;
  q.v_plane = q.group * q.v_row;
  q.block_plane = q.group * nr + 16;
  q.scratch_part = round_up(points * (q.v_plane + q.block_plane) + q.group * 2 + 32, 32);
  return static_cast<size_t>(parts * q.scratch_part) * sizeof(float);
}

Status winograd_step(const void* params, void* const* args, int part, int parts) {
  const auto& q = *static_cast<const WinogradProblem*>(params);
  const auto* x = static_cast<const float*>(args[0]);
  const auto* u = static_cast<const float*>(args[1]);
  const auto* bias = q.has_bias ? static_cast<const float*>(args[2]) : nullptr;
  const auto* residual = q.has_residual ? static_cast<const float*>(args[3]) : nullptr;
  auto* y = static_cast<float*>(args[4]);
  float* scratch = static_cast<float*>(args[5]) + part * q.scratch_part;
  const int64_t points = (q.kernel->m + 2) * (q.kernel->m + 2);
  const Workspace work{scratch, scratch + points * q.v_plane,
                       reinterpret_cast<const float**>(scratch + points * (q.v_plane + q.block_plane))};
  const TileGrid grid(q);
  const GemmPanels panels = winograd_panels(q.kernel->m, *q.gemm, q.channels, q.out_channels);
  const Range tiles = q.split_channels ? Range{0, grid.total} : part_of(grid.total, part, parts);
  const Range share = q.split_channels ? part_of(panel_count(panels), part, parts) : Range{0, panel_count(panels)};
  if (share.begin == share.end) return Status::ok;
  for (int64_t g = 0; g < q.group; ++g) work.rows[g] = work.v + g * q.v_row;
  for (int64_t first = tiles.begin; first < tiles.end; first += q.group) {
    const int64_t count = std::min(q.group, tiles.end - first);
    for (int64_t t = 0; t < count; ++t) transform_in(q, grid, x, first + t, work.v + t * q.v_row);
    for (int64_t i = share.begin; i < share.end; ++i) {
      GemmTile tile;
      tile.a = work.rows;
      tile.ldb = panel_width(panels, i);
      tile.k = q.channels;
      tile.rows = count;
      // All columns of the padded panel: the block's rows are nr wide, and whole vectors are read back.
      tile.cols = std::min<int64_t>(tile.ldb, panels.nr);
      tile.ldc = q.gemm->nr;
      for (int64_t p = 0; p < points; ++p) {
        tile.a_offset = p * q.v_plane;
        tile.b = u + panel_offset(panels, i) + p * q.channels * tile.ldb;
        tile.c = work.block + p * q.block_plane;
        q.gemm->run(tile);
      }
      for (int64_t t = 0; t < count; ++t)
        transform_out(q, grid, work.block + t * q.gemm->nr, first + t, i * panels.nr, panel_cols(panels, i), bias,
                      residual, y);
    }
  }
  return Status::ok;
}

}  // namespace fi
