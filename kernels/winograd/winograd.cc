// SPDX-License-Identifier: Apache-2.0
#include "kernels/winograd/winograd.h"

#include <algorithm>
#include <type_traits>
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
  float* zeros;        // [channels]
};

// Where a tile's first output pixel is.
struct Place {
  int64_t image, top, left;
};

struct TileGrid {
  int64_t step, across, down, total;  // across, down: tiles of one residue
  explicit TileGrid(const WinogradProblem& q)
      : step(q.dilation),
        across(tiles(q.out_w, q)),
        down(tiles(q.out_h, q)),
        total(q.batch * step * step * across * down) {}
  static int64_t tiles(int64_t extent, const WinogradProblem& q) {
    const int64_t own = (extent + q.dilation - 1) / q.dilation;
    return (own + q.kernel->m - 1) / q.kernel->m;
  }
  Place place(int64_t tile, int m) const {
    const int64_t at = tile % (across * down), residue = tile / (across * down) % (step * step);
    return {tile / (across * down * step * step), residue / step + at / across * m * step,
            residue % step + at % across * m * step};
  }
};

// The tile's pixels, row by row, `step` apart: where its channels are in an image of h x w pixels, `outside` beyond it.
template <class T>
void tile_pixels(T* image, int64_t h, int64_t w, int64_t pixel, int64_t top, int64_t left, int64_t step, int n,
                 T* outside, T** out) {
  for (int64_t i = 0, y = top; i < n; ++i, y += step, out += n) {
    const bool line = y >= 0 && y < h;
    T* first = image + y * w * pixel;
    for (int64_t j = 0, x = left; j < n; ++j, x += step) out[j] = line && x >= 0 && x < w ? first + x * pixel : outside;
  }
}

// Maps of many megabytes come from L3 or memory, in short runs that the hardware does not see coming: fetches the
// pixels of the next tile in the row, those at or after column `from`.
template <class T>
void fetch_next(T* const* pixels, int n, int from, int64_t ahead, int64_t channels) {
  for (int i = 0; i < n; ++i)
    for (int j = from; j < n; ++j)
      for (int64_t c = 0; c < channels; c += 16)
        if (pixels[i * n + j]) __builtin_prefetch(pixels[i * n + j] + ahead + c, !std::is_const_v<T>, 2);
}

void transform_in(const WinogradProblem& q, const TileGrid& grid, const float* x, int64_t tile, const Workspace& work,
                  float* v) {
  const int m = q.kernel->m;
  const Place at = grid.place(tile, m);
  const float* pixels[kMaxPoints];
  tile_pixels<const float>(x + at.image * q.in_h * q.in_w * q.x_pixel, q.in_h, q.in_w, q.x_pixel, at.top - q.pad_top,
                           at.left - q.pad_left, grid.step, m + 2, work.zeros, pixels);
  if (q.far_x) fetch_next(pixels, m + 2, 2, m * q.x_pixel, q.channels);
  q.kernel->input(pixels, q.channels, v, q.v_plane);
}

void transform_out(const WinogradProblem& q, const TileGrid& grid, const float* block, int64_t tile, int64_t first,
                   int64_t cols, const float* bias, const float* residual, float* y) {
  const int m = q.kernel->m;
  const Place at = grid.place(tile, m);
  const int64_t pixels = at.image * q.out_h * q.out_w;
  float* rows[kMaxPoints];
  const float* residuals[kMaxPoints];
  tile_pixels<float>(y + pixels * q.y_pixel + first, q.out_h, q.out_w, q.y_pixel, at.top, at.left, grid.step, m,
                     nullptr, rows);
  if (residual)
    tile_pixels<const float>(residual + pixels * q.residual_pixel + first, q.out_h, q.out_w, q.residual_pixel, at.top,
                             at.left, grid.step, m, nullptr, residuals);
  if (q.far_y) fetch_next(rows, m, 0, m * q.y_pixel, cols);
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
  if (m == 6) pack<6>(gemm, weights, channels, out_channels, packed);
}

int winograd_size(int64_t h, int64_t w, int64_t channels, int64_t out_channels, int64_t dilation) {
  if (dilation > 1) {
    // Tiles of F(4) hang over the end of each residue: it must still save half of the products.
    const auto across = [&](int64_t extent) { return ((extent + dilation - 1) / dilation + 3) / 4; };
    const int64_t all = dilation * dilation * across(h) * across(w);
    return all >= 9 && all * 36 * 2 <= h * w * 9 ? 4 : 0;
  }
  const auto tiles = [&](int64_t m) { return ((h + m - 1) / m) * ((w + m - 1) / m); };
  // F(6) has 1.8 times the weights and 4 times the error: it must save 9 % of the products, on many tiles. Weights
  // beyond 16 MiB come from memory: 512 channels at 40x40 take 5.7 ms by F(6) and 5.4 by F(4).
  if (tiles(6) >= 49 && tiles(6) * 64 * 100 <= tiles(4) * 36 * 91 && 64 * 4 * channels * out_channels <= 16 << 20)
    return 6;
  return tiles(4) >= 9 ? 4 : 0;
}

size_t winograd_prepare(WinogradProblem& q, int parts) {
  const TileGrid grid(q);
  const int64_t points = (q.kernel->m + 2) * (q.kernel->m + 2), nr = q.gemm->nr;
  q.block_row = std::min(nr, round_up(q.out_channels, 16));
  q.far_x = q.dilation == 1 && q.in_h * q.in_w * q.x_pixel * 4 > 2 * caches().l2;
  q.far_y = q.dilation == 1 && q.out_h * q.out_w * q.y_pixel * 4 > 2 * caches().l2;
  // Tiles with which V and the block fill three quarters of L2.
  const int64_t tile_bytes = points * (round_up(q.channels, 16) + 16 + q.block_row) * 4, mr = q.gemm->mr;
  const int64_t fitting = std::clamp<int64_t>(caches().l2 * 3 / 4 / tile_bytes / mr, 2, 8) * mr;
  // Where few tiles meet many weights, each core reads its share of the weights and transforms all tiles: 256 channels
  // at 14x14 with cold weights take .28 ms on two cores instead of .36.
  const int64_t u_bytes = points * q.channels * q.out_channels * 4;
  q.split_channels = parts > 1 && grid.total <= fitting + mr && u_bytes >= 1 << 21 && q.out_channels / nr >= parts;
  const int64_t share = q.split_channels ? grid.total : (grid.total + parts - 1) / parts;
  // Every group reads all of U. From L3 that costs more than V's share that leaves L2, up to 24 tiles (128 channels at
  // 64x64: 1.10 ms instead of 1.22); from memory, it is the time (512 channels at 40x40: 50 tiles 5.4 ms, 12
  // tiles 7.5).
  const int64_t most = u_bytes > caches().l3 / 2 ? 8 : std::min<int64_t>(caches().l2 * 2 / tile_bytes / mr, 4);
  const int64_t tiles = std::max(fitting, most * mr);
  const int64_t groups = share <= tiles + mr ? 1 : (share + tiles - 1) / tiles;
  q.group = std::min(share, round_up((share + groups - 1) / std::max<int64_t>(groups, 1), mr));
  // An odd number of lines keeps the points' planes from falling on one another's cache sets.
  q.v_row = round_up(q.channels, 16) + 16;
  q.v_plane = (q.group * q.v_row / 16 | 1) * 16;
  q.block_plane = (q.group * q.block_row / 16 | 1) * 16;
  q.scratch_part = round_up(points * (q.v_plane + q.block_plane) + q.group * 2 + q.channels + 32, 32);
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
                       reinterpret_cast<const float**>(scratch + points * (q.v_plane + q.block_plane)),
                       scratch + points * (q.v_plane + q.block_plane) + q.group * 2};
  std::fill_n(work.zeros, q.channels, 0.f);
  const TileGrid grid(q);
  const GemmPanels panels = winograd_panels(q.kernel->m, *q.gemm, q.channels, q.out_channels);
  const Range tiles = q.split_channels ? Range{0, grid.total} : part_of(grid.total, part, parts);
  const Range share = q.split_channels ? part_of(panel_count(panels), part, parts) : Range{0, panel_count(panels)};
  if (share.begin == share.end) return Status::ok;
  for (int64_t g = 0; g < q.group; ++g) work.rows[g] = work.v + g * q.v_row;
  for (int64_t first = tiles.begin; first < tiles.end; first += q.group) {
    const int64_t count = std::min(q.group, tiles.end - first);
    for (int64_t t = 0; t < count; ++t) transform_in(q, grid, x, first + t, work, work.v + t * q.v_row);
    for (int64_t i = share.begin; i < share.end; ++i) {
      GemmTile tile;
      tile.a = work.rows;
      tile.ldb = panel_width(panels, i);
      tile.k = q.channels;
      tile.rows = count;
      // All columns of the padded panel: whole vectors are read back.
      tile.cols = tile.ldb;
      tile.ldc = q.block_row;
      for (int64_t p = 0; p < points; ++p) {
        tile.a_offset = p * q.v_plane;
        tile.b = u + panel_offset(panels, i) + p * q.channels * tile.ldb;
        tile.c = work.block + p * q.block_plane;
        if (count > q.gemm->mr) tile.ahead = q.channels * tile.ldb * 4;  // points and panels follow one another
        q.gemm->run(tile);
      }
      for (int64_t t = 0; t < count; ++t)
        transform_out(q, grid, work.block + t * q.block_row, first + t, i * panels.nr, panel_cols(panels, i), bias,
                      residual, y);
    }
  }
  return Status::ok;
}

}  // namespace fi
