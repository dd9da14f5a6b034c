// SPDX-License-Identifier: Apache-2.0
// The driver around the bfloat16 microkernel: row blocks, rounding of A, panels, parts.
#include <algorithm>

#include "kernels/gemm/gemm_bf16.h"

namespace fi {
namespace {

// Rows per microkernel call; a multiple of every variant's mr.
constexpr int64_t kRows = 240;
// Elements of A that stay in L2 while the panels pass by: 256 KiB.
constexpr int64_t kBlock = 1 << 17;

// Elements from one rounded row to the next: whole lines, and one more, which keeps powers of two from falling on one
// another's cache sets.
int64_t row_elements(const GemmBF16Step& p) { return (p.k + 31) / 32 * 32 + 32; }

int64_t block_rows(const GemmBF16Step& p) {
  const int64_t mr = p.kernel->mr, rows = std::clamp<int64_t>(kBlock / std::max<int64_t>(p.k, 1), mr, kRows);
  return std::min(rows / mr * mr, (p.m + mr - 1) / mr * mr);
}

// What one part does to a range of rows and panels.
class Part {
 public:
  Part(const GemmBF16Step& p, void* const* args, uint16_t* scratch)
      : p_(p), args_(args), scratch_(scratch), panels_{1, p.k, p.n} {}

  // Units [begin, end) of the product's row tiles, counted panel by panel.
  void run(int64_t begin, int64_t end, int64_t tiles) {
    const int64_t mr = p_.kernel->mr, block = block_rows(p_);
    const bool one_panel = begin / tiles == (end - 1) / tiles;
    const int64_t first = one_panel ? begin % tiles * mr : 0, last = one_panel ? (end - 1) % tiles * mr + mr : p_.m;
    for (int64_t r = first; r < std::min(last, p_.m); r += block) {
      const int64_t stop = std::min({r + block, last, p_.m});
      bind_rows(r, stop);
      for (int64_t u = begin; u < end; u = (u / tiles + 1) * tiles) {
        const int64_t panel_end = std::min((u / tiles + 1) * tiles, end);
        panel(u / tiles, std::max(r, u % tiles * mr), std::min(stop, ((panel_end - 1) % tiles + 1) * mr), r,
              panel_end < end);
      }
    }
  }

  // Rows [begin, end) of all panels.
  void rows(int64_t begin, int64_t end) {
    const int64_t block = block_rows(p_);
    for (int64_t r = begin; r < end; r += block) {
      const int64_t stop = std::min(end, r + block);
      bind_rows(r, stop);
      for (int64_t i = 0; i < panels_.count(); ++i) panel(i, r, stop, r, i + 1 < panels_.count());
    }
  }

 private:
  void bind_rows(int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      if (p_.a_bf16) {
        rows_[r - begin] = static_cast<const uint16_t*>(args_[0]) + r * p_.lda;
      } else {
        uint16_t* row = scratch_ + (r - begin) * row_elements(p_);
        p_.kernel->round(static_cast<const float*>(args_[0]) + r * p_.lda, row, p_.k);
        rows_[r - begin] = row;
      }
    }
  }

  // Rows [begin, end) of panel i, where row `bound` is the first that is bound; panel i + 1 follows if `more`.
  void panel(int64_t i, int64_t begin, int64_t end, int64_t bound, bool more) {
    if (begin >= end) return;
    GemmBF16Tile g;
    g.a = rows_ + (begin - bound);
    g.b = static_cast<const uint16_t*>(args_[1]) + panels_.offset(i);
    g.width = panels_.width(i);
    g.k = p_.k;
    g.rows = end - begin;
    g.cols = panels_.cols(i);
    g.ldc = g.ld_residual = p_.n;
    g.c_bf16 = p_.y_bf16;
    g.residual_bf16 = p_.residual_bf16;
    const int64_t column = i * kBF16Panel, at = begin * p_.n + column;
    g.c = static_cast<char*>(args_[4]) + at * (p_.y_bf16 ? 2 : 4);
    if (args_[3]) g.residual = static_cast<const char*>(args_[3]) + at * (p_.residual_bf16 ? 2 : 4);
    if (args_[2]) g.bias = static_cast<const float*>(args_[2]) + column;
    g.epilogue = p_.epilogue;
    g.ahead = more ? panels_.pairs() * panels_.width(i + 1) * 4 : 0;
    p_.kernel->run(g);
  }

  const GemmBF16Step& p_;
  void* const* args_;
  uint16_t* scratch_;
  BF16Panels panels_;
  const uint16_t* rows_[kRows];
};

}  // namespace

double gemm_bf16_prepare(GemmBF16Step& p) {
  const double m = static_cast<double>(p.m), n = static_cast<double>(p.n), k = static_cast<double>(p.k);
  // Every core reads the whole operand that is not cut, so the larger one is cut.
  p.split_rows = p.m >= p.n;
  return m * n * k / 64 + (k * n / 2 + m * (k + n)) / 8;
}

size_t gemm_bf16_scratch(const GemmBF16Step& p, int parts) {
  return p.a_bf16 ? 0 : static_cast<size_t>(parts * block_rows(p) * row_elements(p)) * 2;
}

Status gemm_bf16_step(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const GemmBF16Step*>(params);
  if (p.m == 0 || p.n == 0) return Status::ok;
  auto* scratch = static_cast<uint16_t*>(args[5]);
  if (!p.a_bf16) scratch += block_rows(p) * row_elements(p) * part;
  const int64_t mr = p.kernel->mr, tiles = (p.m + mr - 1) / mr, panels = (p.n + kBF16Panel - 1) / kBF16Panel;
  Part work(p, args, scratch);
  const auto [begin, end] = part_of(p.split_rows ? tiles : tiles * panels, part, parts);
  if (begin == end) return Status::ok;
  if (p.split_rows)
    work.rows(begin * mr, std::min(p.m, end * mr));
  else
    work.run(begin, end, tiles);
  return Status::ok;
}

Status round_bf16_step(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const RoundBF16*>(params);
  const auto [begin, end] = part_of(p.n, part, parts, 64);
  p.kernel->round(static_cast<const float*>(args[0]) + begin, static_cast<uint16_t*>(args[1]) + begin, end - begin);
  return Status::ok;
}

}  // namespace fi
