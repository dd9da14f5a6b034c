// SPDX-License-Identifier: Apache-2.0
// The driver around the f32 microkernel: batches, row blocks, panels, parts.
#include <algorithm>

#include "kernels/gemm/gemm.h"

namespace fi {
namespace {

// Row pointers on the stack per microkernel call. A multiple of every variant's mr.
constexpr int64_t kRows = 240;
// K per call when there are many rows: a panel of 1024 x 64 floats is a quarter of a 1 MiB L2.
constexpr int64_t kDepth = 1024;
// Rows from which packing a panel of a dense B costs less than reading it with a large stride for every row tile.
constexpr int64_t kPackRows = 24;

struct Matrices {
  const float *a, *b, *bias, *residual;
  float *c, *scratch;
};

// One product of the batch, as one part sees it.
class Product {
 public:
  Product(const GemmStep& p, const Matrices& all, int64_t index) : p_(p), x_(all), panels_{1, p.k, p.n, p.kernel->nr} {
    if (x_.residual) x_.residual += index * p.m * p.n;
    x_.c += index * p.m * p.n;
    for (int d = p.batch_rank - 1; d >= 0; index /= p.batch[d--]) {
      x_.a += index % p.batch[d] * p.a_batch[d];
      x_.b += index % p.batch[d] * p.b_batch[d];
    }
  }

  // Rows [begin, end) of all panels: a block of rows stays in the cache while the panels pass by.
  void rows(int64_t begin, int64_t end) {
    // 256 KiB of A, in whole row tiles.
    const int64_t block = std::clamp<int64_t>((1 << 16) / std::max<int64_t>(p_.k, 1), 6, kRows) / 6 * 6;
    for (int64_t r = begin; r < end; r += block)
      for (int64_t i = 0; i < panel_count(panels_); ++i)
        panel(i, r, std::min(end, r + block), i + 1 < panel_count(panels_));
  }

  // Rows [begin, end) of panel i; panel i + 1 follows if `more`.
  void panel(int64_t i, int64_t begin, int64_t end, bool more) {
    GemmTile g;
    g.cols = panel_cols(panels_, i);
    g.k = p_.k;
    g.ldc = ldc_;
    g.ld_residual = ld_residual_;
    g.bias = x_.bias ? x_.bias + i * panels_.nr : nullptr;
    g.epilogue = p_.epilogue;
    bind_panel(g, i);
    more_ = more;
    for (int64_t r = begin; r < end; r += kRows) rows_of_panel(g, i, r, std::min(end, r + kRows), r + kRows >= end);
  }

 private:
  void bind_panel(GemmTile& g, int64_t i) {
    if (p_.b_form == GemmB::packed) {
      g.b = x_.b + panel_offset(panels_, i);
      g.ldb = panel_width(panels_, i);
    } else if (p_.b_n == 1 && p_.m < kPackRows && g.cols % 16 == 0) {
      g.b = x_.b + i * panels_.nr;
      g.ldb = p_.b_k;
    } else {
      g.b = x_.scratch;
      g.ldb = panel_width(panels_, i);
      if (in_scratch_ != i)
        p_.kernel->pack_panel(x_.b + i * panels_.nr * p_.b_n, p_.b_k, p_.b_n, p_.k, g.cols, g.ldb, x_.scratch);
      in_scratch_ = i;
    }
  }

  void rows_of_panel(GemmTile& g, int64_t i, int64_t begin, int64_t end, bool last_rows) {
    const float* rows[kRows];
    g.rows = end - begin;
    // Narrow panels have taller tiles there: 14 rows of two vectors, 16 of one.
    const auto run = g.cols <= p_.kernel->nr * 3 / 4 ? p_.kernel->run_rows : p_.kernel->run;
    const int64_t pointers = run == p_.kernel->run ? g.rows : 1;
    for (int64_t r = 0; r < pointers; ++r) rows[r] = x_.a + (begin + r) * p_.lda;
    g.a = rows;
    g.a_row = p_.lda;
    g.c = x_.c + begin * ldc_ + i * panels_.nr;
    g.residual = x_.residual ? x_.residual + begin * ld_residual_ + i * panels_.nr : nullptr;
    // Cutting K keeps the panel in L2 for the next row tile. The sums wait in C, which therefore must not be R.
    const bool cut = p_.k > kDepth * 3 / 2 && g.rows > p_.kernel->mr && x_.residual != x_.c;
    const int64_t depth = cut ? kDepth : p_.k;
    const float* b = g.b;
    int64_t k = 0;
    do {
      g.a_offset = k;
      g.b = b + k * g.ldb;
      g.k = std::min(depth, p_.k - k);
      g.accumulate = k > 0;
      g.partial = k + g.k < p_.k;
      // With 8 to 200 rows and cold weights this gains 3 to 15 %; a single row tile cannot get ahead of itself.
      const bool follows = p_.b_form == GemmB::packed && (g.partial || (more_ && last_rows));
      g.ahead = follows && g.rows > p_.kernel->mr ? g.k * g.ldb * static_cast<int64_t>(sizeof(float)) : 0;
      run(g);
      k += g.k;
    } while (k < p_.k);
    g.b = b;
  }

  const GemmStep& p_;
  Matrices x_;
  GemmPanels panels_;
  int64_t ldc_ = p_.ldc ? p_.ldc : p_.n, ld_residual_ = p_.ld_residual ? p_.ld_residual : p_.n;
  int64_t in_scratch_ = -1;
  bool more_ = false;
};

int64_t batch_size(const GemmStep& p) {
  int64_t n = 1;
  for (int d = 0; d < p.batch_rank; ++d) n *= p.batch[d];
  return n;
}

bool needs_scratch(const GemmStep& p) {
  return p.b_form == GemmB::dense && !(p.b_n == 1 && p.m < kPackRows && p.n % 16 == 0);
}

}  // namespace

double gemm_f32_prepare(GemmStep& p) {
  const double batches = static_cast<double>(batch_size(p)), m = static_cast<double>(p.m);
  const double n = static_cast<double>(p.n), k = static_cast<double>(p.k);
  // Every core reads the whole operand that is not cut, so the larger one is cut. Panels that are packed on the way
  // are cut by columns, as else each core would pack all of them.
  p.split_rows = p.b_form == GemmB::packed && p.m >= p.n;
  return batches * (m * n * k / 32 + (k * n + m * (k + n)) / 8);
}

int64_t gemm_f32_scratch(const GemmStep& p, int parts) {
  return needs_scratch(p) ? parts * p.k * std::min<int64_t>(p.kernel->nr, (p.n + 15) / 16 * 16) : 0;
}

Status gemm_f32_step(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const GemmStep*>(params);
  Matrices all{static_cast<const float*>(args[0]), static_cast<const float*>(args[1]),
               static_cast<const float*>(args[2]), static_cast<const float*>(args[3]),
               static_cast<float*>(args[4]),       static_cast<float*>(args[5])};
  if (p.m == 0 || p.n == 0) return Status::ok;
  if (needs_scratch(p)) all.scratch += gemm_f32_scratch(p, 1) * part;
  const int64_t batches = batch_size(p), mr = p.kernel->mr;
  const int64_t tiles = (p.m + mr - 1) / mr, panels = (p.n + p.kernel->nr - 1) / p.kernel->nr;
  const int64_t per_product = p.split_rows ? tiles : tiles * panels;
  // A panel that is packed on the way goes to one part as a whole, unless that would leave parts idle.
  const int64_t grain = needs_scratch(p) && batches * panels >= 2 * parts ? tiles : 1;
  const auto [begin, end] = part_of(batches * per_product, part, parts, grain);
  for (int64_t t = begin; t < end;) {
    const int64_t index = t / per_product, first = t % per_product;
    const int64_t last = std::min(per_product, first + end - t);
    Product product(p, all, index);
    if (p.split_rows) {
      product.rows(first * mr, std::min(p.m, last * mr));
    } else {
      for (int64_t u = first; u < last;) {
        const int64_t row = u % tiles, stop = std::min(tiles, row + last - u);
        product.panel(u / tiles, row * mr, std::min(p.m, stop * mr), u + stop - row < last);
        u += stop - row;
      }
    }
    t += last - first;
  }
  return Status::ok;
}

}  // namespace fi
