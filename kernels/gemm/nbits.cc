// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm/nbits.h"

#include <algorithm>
#include <cstring>

namespace fi {

#define FI_KERNEL(isa, symbol)            \
  namespace isa {                         \
  void symbol(const NBitsChunk&, float*); \
  }
#include "kernels/gemm/kernels_nbits.inc"
#undef FI_KERNEL

DequantizeFn dequantize_nbits(Isa isa) {
  struct Row {
    Isa isa;
    DequantizeFn fn;
  };
  static const Row rows[] = {
#define FI_KERNEL(isa, symbol) {Isa::isa, &isa::symbol},
#include "kernels/gemm/kernels_nbits.inc"
#undef FI_KERNEL
  };
  const Row* row = rows;
  while (row->isa > isa) ++row;  // the last row is the baseline, which every machine has
  return row->fn;
}

void pack_nbits(const NBitsPanels& p, const uint8_t* b, uint8_t* packed) {
  const GemmPanels panels = columns_of(p, rows_of_q(p));
  std::memset(packed, 0, static_cast<size_t>(packed_floats(panels)));
  const int64_t stride = blocks_of_k(p) * (p.block * p.bits / 8);
  for (int64_t n = 0; n < p.n; ++n) {
    const int64_t i = n / panels.nr, width = panel_width(panels, i);
    uint8_t* column = packed + panel_offset(panels, i) + n % panels.nr;
    const uint8_t* from = b + n * stride;
    if (p.bits == 8)
      for (int64_t k = 0; k < p.k; ++k) column[k * width] = from[k];
    else
      for (int64_t k = 0; k < (p.k + 1) / 2; ++k) column[k * width] = from[k];
  }
}

void pack_nbits_values(const NBitsPanels& p, const float* values, float* packed) {
  const int64_t blocks = blocks_of_k(p);
  const GemmPanels panels = columns_of(p, blocks);
  std::memset(packed, 0, static_cast<size_t>(packed_floats(panels)) * sizeof(float));
  for (int64_t n = 0; n < p.n; ++n) {
    const int64_t i = n / panels.nr;
    for (int64_t b = 0; b < blocks; ++b)
      packed[panel_offset(panels, i) + b * panel_width(panels, i) + n % panels.nr] = values[n * blocks + b];
  }
}

namespace {

// Rows [begin, end) of panel i.
void run_panel(const NBitsStep& p, void* const* args, float* chunk, int64_t i, int64_t begin, int64_t end) {
  constexpr int64_t kRows = 240;
  const GemmPanels q = columns_of(p.b, rows_of_q(p.b)), values = columns_of(p.b, blocks_of_k(p.b));
  const float *zero = static_cast<const float*>(args[3]), *bias = static_cast<const float*>(args[4]);
  NBitsChunk c{static_cast<const uint8_t*>(args[1]) + panel_offset(q, i),
               static_cast<const float*>(args[2]) + panel_offset(values, i),
               zero ? zero + panel_offset(values, i) : nullptr,
               p.b.block,
               panel_width(q, i),
               0,
               0,
               p.b.bits};
  GemmTile g;
  g.b = chunk;
  g.ldb = c.width;
  g.cols = panel_cols(q, i);
  g.ldc = p.b.n;
  g.bias = bias ? bias + i * q.nr : nullptr;
  do {
    c.k1 = std::min(p.b.k, c.k0 + kNBitsChunk);
    p.dequantize(c, chunk);
    g.k = c.k1 - c.k0;
    g.a_offset = c.k0;
    g.accumulate = c.k0 > 0;
    g.partial = c.k1 < p.b.k;
    for (int64_t r = begin; r < end; r += kRows) {
      const float* rows[kRows];
      g.rows = std::min(kRows, end - r);
      for (int64_t j = 0; j < g.rows; ++j) rows[j] = static_cast<const float*>(args[0]) + (r + j) * p.b.k;
      g.a = rows;
      g.c = static_cast<float*>(args[5]) + r * p.b.n + i * q.nr;
      p.kernel->run(g);
    }
    c.k0 = c.k1;
  } while (c.k0 < p.b.k);
}

}  // namespace

Status nbits_step(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const NBitsStep*>(params);
  if (p.m == 0 || p.b.n == 0) return Status::ok;
  float* chunk = static_cast<float*>(args[6]) + part * kNBitsChunk * 64;
  const int64_t panels = panel_count(columns_of(p.b, 1)), tiles = (p.m + p.kernel->mr - 1) / p.kernel->mr;
  // Whole panels, so that each is dequantised once, unless that would leave parts idle.
  const Range range = part_of(panels * tiles, part, parts, panels >= parts ? tiles : 1);
  for (int64_t t = range.begin; t < range.end;) {
    const int64_t first = t % tiles, last = std::min(tiles, first + range.end - t);
    run_panel(p, args, chunk, t / tiles, first * p.kernel->mr, std::min(p.m, last * p.kernel->mr));
    t += last - first;
  }
  return Status::ok;
}

}  // namespace fi
