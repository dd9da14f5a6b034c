// SPDX-License-Identifier: Apache-2.0
// The driver: groups of tiles, products point by point, parts.
#include "kernels/winograd/winograd_bf16.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace fi {

#define FI_KERNEL(isa)                                                                                         \
  namespace isa {                                                                                              \
  void winograd_bf16_input(const void* const*, bool, int64_t, uint16_t*, int64_t);                             \
  void winograd_bf16_output(const float*, int64_t, int64_t, const float*, const Epilogue&, void* const*, bool, \
                            const void* const*, bool);                                                         \
  }
#include "kernels/winograd/kernels_bf16.inc"
#undef FI_KERNEL

const WinogradBF16& winograd_bf16(Isa isa) {
  static const WinogradBF16 rows[] = {
#define FI_KERNEL(isa) {"winograd_bf16_2x2_" #isa, Isa::isa, &isa::winograd_bf16_input, &isa::winograd_bf16_output},
#include "kernels/winograd/kernels_bf16.inc"
#undef FI_KERNEL
  };
  const WinogradBF16* row = rows;
  while (row->isa > isa) ++row;  // the last row is the baseline, which every machine has
  return *row;
}

BF16Panels winograd_bf16_panels(int64_t channels, int64_t out_channels) {
  return {kWinogradBF16Points, channels, out_channels};
}

void winograd_bf16_pack(const float* w, int64_t channels, int64_t out_channels, uint16_t* packed) {
  // One output channel at a time keeps the buffer small: u[p][c].
  static constexpr double g[4][3] = {{1, 0, 0}, {.5, .5, .5}, {.5, -.5, .5}, {0, 0, 1}};
  std::vector<float> u(static_cast<size_t>(kWinogradBF16Points * channels * out_channels));
  for (int64_t o = 0; o < out_channels; ++o)
    for (int64_t c = 0; c < channels; ++c, w += 9) {
      double half[4][3];
      for (int i = 0; i < 4; ++i)
        for (int x = 0; x < 3; ++x) half[i][x] = g[i][0] * w[x] + g[i][1] * w[3 + x] + g[i][2] * w[6 + x];
      for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j)
          u[((i * 4 + j) * channels + c) * out_channels + o] =
              static_cast<float>(half[i][0] * g[j][0] + half[i][1] * g[j][1] + half[i][2] * g[j][2]);
    }
  gemm_bf16_pack(winograd_bf16_panels(channels, out_channels), u.data(), channels * out_channels, out_channels, 1,
                 packed);
}

namespace {

int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

struct TileGrid {
  int64_t across, down, total;
  explicit TileGrid(const WinogradBF16Problem& q)
      : across((q.out_w + 1) / 2), down((q.out_h + 1) / 2), total(q.batch * across * down) {}
};

// One part's work.
class Part {
 public:
  Part(const WinogradBF16Problem& q, void* const* args, char* scratch)
      : q_(q),
        args_(args),
        grid_(q),
        panels_(winograd_bf16_panels(q.channels, q.out_channels)),
        block_(reinterpret_cast<float*>(scratch)),
        v_(reinterpret_cast<uint16_t*>(block_ + kWinogradBF16Points * q.block_plane)),
        rows_(reinterpret_cast<const uint16_t**>(v_ + kWinogradBF16Points * q.v_plane)),
        zeros_(reinterpret_cast<char*>(rows_ + q.group)) {
    std::memset(zeros_, 0, static_cast<size_t>(q.channels) * 4);
    for (int64_t t = 0; t < q.group; ++t) rows_[t] = v_ + t * q.v_row;
  }

  void run(Range tiles, Range panels) {
    for (int64_t first = tiles.begin; first < tiles.end; first += q_.group) {
      const int64_t count = std::min(q_.group, tiles.end - first);
      for (int64_t t = 0; t < count; ++t) transform_in(first + t, v_ + t * q_.v_row);
      for (int64_t i = panels.begin; i < panels.end; ++i) {
        multiply(i, count);
        for (int64_t t = 0; t < count; ++t) transform_out(first + t, block_ + t * kBF16Panel, i);
      }
    }
  }

 private:
  struct At {
    int64_t image, top, left;
  };
  At at(int64_t tile) const {
    const int64_t per_image = grid_.across * grid_.down, i = tile % per_image;
    return {tile / per_image, i / grid_.across * 2, i % grid_.across * 2};
  }

  void transform_in(int64_t tile, uint16_t* v) const {
    const At a = at(tile);
    const auto* x = static_cast<const char*>(args_[0]);
    const int64_t pixel = q_.channels * (q_.x_bf16 ? 2 : 4);
    const void* pixels[kWinogradBF16Points];
    for (int i = 0; i < 4; ++i)
      for (int j = 0; j < 4; ++j) {
        const int64_t y = a.top - q_.pad_top + i, z = a.left - q_.pad_left + j;
        const bool inside = y >= 0 && y < q_.in_h && z >= 0 && z < q_.in_w;
        pixels[i * 4 + j] = inside ? x + ((a.image * q_.in_h + y) * q_.in_w + z) * pixel : zeros_;
      }
    q_.kernel->input(pixels, q_.x_bf16, q_.channels, v, q_.v_plane);
  }

  void multiply(int64_t panel, int64_t count) {
    GemmBF16Tile tile;
    tile.a = rows_;
    tile.width = panels_.width(panel);
    tile.k = q_.channels;
    tile.rows = count;
    tile.cols = tile.width;  // of the padded panel: whole vectors are read back
    tile.ldc = kBF16Panel;
    tile.ahead = panels_.pairs() * tile.width * 4;  // the next point, or the next panel's first
    const auto* u = static_cast<const uint16_t*>(args_[1]) + panels_.offset(panel);
    for (int64_t p = 0; p < kWinogradBF16Points; ++p) {
      tile.a_offset = p * q_.v_plane;
      tile.b = u + p * panels_.pairs() * tile.width * 2;
      tile.c = block_ + p * q_.block_plane;
      q_.gemm->run(tile);
    }
  }

  void transform_out(int64_t tile, const float* block, int64_t panel) const {
    const At a = at(tile);
    const int64_t y_size = q_.y_bf16 ? 2 : 4, r_size = q_.residual_bf16 ? 2 : 4, first = panel * kBF16Panel;
    void* rows[4];
    const void* residuals[4];
    for (int k = 0; k < 4; ++k) {
      const int64_t y = a.top + k / 2, x = a.left + k % 2;
      const bool inside = y < q_.out_h && x < q_.out_w;
      const int64_t offset = ((a.image * q_.out_h + y) * q_.out_w + x) * q_.out_channels + first;
      rows[k] = inside ? static_cast<char*>(args_[4]) + offset * y_size : nullptr;
      residuals[k] = inside && args_[3] ? static_cast<const char*>(args_[3]) + offset * r_size : nullptr;
    }
    const auto* bias = static_cast<const float*>(args_[2]);
    q_.kernel->output(block, q_.block_plane, panels_.cols(panel), bias ? bias + first : nullptr, q_.epilogue, rows,
                      q_.y_bf16, args_[3] ? residuals : nullptr, q_.residual_bf16);
  }

  const WinogradBF16Problem& q_;
  void* const* args_;
  TileGrid grid_;
  BF16Panels panels_;
  float* block_;
  uint16_t* v_;
  const uint16_t** rows_;
  char* zeros_;  // a pixel of the padding
};

}  // namespace

size_t winograd_bf16_prepare(WinogradBF16Problem& q, int parts) {
  const TileGrid grid(q);
  const int64_t mr = q.gemm->mr;
  // Elements beyond C keep the points' planes from falling on one another's cache sets; whole vectors are written.
  q.v_row = round_up(q.channels, 32) + 32;
  // V and the block fill about half of L2.
  const int64_t tile_bytes = kWinogradBF16Points * (q.v_row * 2 + kBF16Panel * 4);
  const int64_t fitting = std::clamp<int64_t>(caches().l2 / 2 / tile_bytes / mr, 2, 12) * mr;
  // Small maps of many channels: else every core would stream all of U for few tiles.
  q.split_channels = grid.total < 48 && q.out_channels >= parts * kBF16Panel;
  const int64_t share = q.split_channels ? grid.total : (grid.total + parts - 1) / parts;
  const int64_t groups = (share + fitting - 1) / fitting;
  q.group = round_up((share + groups - 1) / std::max<int64_t>(groups, 1), mr);
  q.v_plane = q.group * q.v_row;
  q.block_plane = q.group * kBF16Panel + 16;
  q.scratch_part =
      round_up(kWinogradBF16Points * (q.v_plane * 2 + q.block_plane * 4) + q.group * 8 + q.channels * 4, 128);
  return static_cast<size_t>(parts * q.scratch_part);
}

Status winograd_bf16_step(const void* params, void* const* args, int part, int parts) {
  const auto& q = *static_cast<const WinogradBF16Problem*>(params);
  const int64_t tiles = TileGrid(q).total, panels = (q.out_channels + kBF16Panel - 1) / kBF16Panel;
  const Range mine = q.split_channels ? Range{0, tiles} : part_of(tiles, part, parts);
  const Range share = q.split_channels ? part_of(panels, part, parts) : Range{0, panels};
  if (mine.begin == mine.end || share.begin == share.end) return Status::ok;
  Part(q, args, static_cast<char*>(args[5]) + part * q.scratch_part).run(mine, share);
  return Status::ok;
}

}  // namespace fi
