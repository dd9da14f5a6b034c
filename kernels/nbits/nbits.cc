// SPDX-License-Identifier: Apache-2.0
#include "kernels/nbits/nbits.h"

#include <algorithm>
#include <cstring>

#include "csrc/base/error.h"

namespace fi {

#define FI_KERNEL(isa, symbol)  \
  namespace isa {               \
  extern const NBitsF32 symbol; \
  }
#include "kernels/nbits/kernels.inc"
#undef FI_KERNEL
#define FI_KERNEL(isa, symbol) \
  namespace isa {              \
  extern const NBitsS8 symbol; \
  }
#include "kernels/nbits/kernels_s8.inc"
#undef FI_KERNEL

namespace {

NBitsKernels select(Isa isa) {
  NBitsKernels k{};
#define FI_KERNEL(isa_, symbol)     \
  if (!k.f32 && Isa::isa_ <= isa) { \
    k.f32 = &isa_::symbol;          \
    k.f32_name = #symbol "_" #isa_; \
  }
#include "kernels/nbits/kernels.inc"
#undef FI_KERNEL
#define FI_KERNEL(isa_, symbol)    \
  if (!k.s8 && Isa::isa_ <= isa) { \
    k.s8 = &isa_::symbol;          \
    k.s8_name = #symbol "_" #isa_; \
  }
#include "kernels/nbits/kernels_s8.inc"
#undef FI_KERNEL
  return k;
}

}  // namespace

const NBitsKernels& nbits_kernels(Isa isa) {
  static const NBitsKernels all[] = {select(Isa::baseline), select(Isa::avx2), select(Isa::avx512),
                                     select(Isa::avx512vnni), select(Isa::avx512bf16)};
  return all[static_cast<int>(isa)];
}

void pack_nbits(const NBitsPanels& p, const uint8_t* b, uint8_t* packed) {
  const int64_t groups = groups_of_k(p), stride = blocks_of_k(p) * (p.block * p.bits / 8);
  const GemmPanels panels = columns_of(p, groups);
  std::memset(packed, 0, static_cast<size_t>(packed_floats(panels)) * 4);
  for (int64_t n = 0; n < p.n; ++n) {
    const int64_t i = n / panels.nr, width = panel_width(panels, i);
    uint8_t* column = packed + 4 * (panel_offset(panels, i) + n % panels.nr);
    const uint8_t* from = b + n * stride;  // whole groups: a block is a multiple of one
    for (int64_t g = 0; g < groups; ++g, from += 4) {
      uint8_t* to = column + 4 * g * width;
      if (p.bits == 8) {
        std::memcpy(to, from, 4);
        continue;
      }
      for (int h = 0; h < 2; ++h) {
        to[2 * h] = static_cast<uint8_t>((from[h] & 15) | from[h + 2] << 4);
        to[2 * h + 1] = static_cast<uint8_t>(from[h] >> 4 | (from[h + 2] & 0xf0));
      }
    }
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

// Panel i of the operands q, scale, zero, bias and Y, which begin at args[1]; rows are left open.
NBitsTile tile_of(const NBitsStep& p, void* const* args, int64_t i) {
  const GemmPanels q = columns_of(p.b, groups_of_k(p.b)), values = columns_of(p.b, blocks_of_k(p.b));
  const float *zero = static_cast<const float*>(args[3]), *bias = static_cast<const float*>(args[4]);
  NBitsTile t;
  t.q = static_cast<const uint8_t*>(args[1]) + 4 * panel_offset(q, i);
  t.scale = static_cast<const float*>(args[2]) + panel_offset(values, i);
  t.zero = zero ? zero + panel_offset(values, i) : nullptr;
  t.k = p.b.k;
  t.block = p.b.block;
  t.bits = p.b.bits;
  t.cols = panel_cols(q, i);
  t.width = panel_width(q, i);
  t.c = static_cast<float*>(args[5]) + i * q.nr;
  t.ldc = p.b.n;
  t.bias = bias ? bias + i * q.nr : nullptr;
  return t;
}

// Rows [begin, end): chunks of the panel become floats once for all of them.
void many_rows(const NBitsStep& p, const NBitsTile& t, const float* a, float* chunk, int64_t begin, int64_t end) {
  constexpr int64_t kRows = 240;
  NBitsChunk c{t.q, t.scale, t.zero, t.block, t.width, 0, 0, t.bits};
  GemmTile g;
  g.b = chunk;
  g.ldb = t.width;
  g.cols = t.cols;
  g.ldc = t.ldc;
  g.bias = t.bias;
  do {
    c.k1 = std::min(t.k, c.k0 + kNBitsChunk);
    p.kernels->f32->dequantize(c, chunk);
    g.k = c.k1 - c.k0;
    g.a_offset = c.k0;
    g.accumulate = c.k0 > 0;
    g.partial = c.k1 < t.k;
    for (int64_t r = begin; r < end; r += kRows) {
      const float* rows[kRows];
      g.rows = std::min(kRows, end - r);
      for (int64_t j = 0; j < g.rows; ++j) rows[j] = a + (r + j) * t.k;
      g.a = rows;
      g.c = t.c + r * t.ldc;
      p.gemm->run(g);
    }
    c.k0 = c.k1;
  } while (c.k0 < t.k);
}

// Calls f(panel, first row, end of rows) for this part's share: whole panels, unless that would leave parts idle.
template <class F>
void for_each_panel(const NBitsStep& p, int64_t tile_rows, int part, int parts, const F& f) {
  if (p.m == 0 || p.b.n == 0) return;
  const int64_t panels = panel_count(columns_of(p.b, 1)), tiles = (p.m + tile_rows - 1) / tile_rows;
  const Range range = part_of(panels * tiles, part, parts, panels >= parts ? tiles : 1);
  for (int64_t t = range.begin; t < range.end;) {
    const int64_t first = t % tiles, last = std::min(tiles, first + range.end - t);
    f(t / tiles, first * tile_rows, std::min(p.m, last * tile_rows));
    t += last - first;
  }
}

}  // namespace

Status nbits_f32_step(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const NBitsStep*>(params);
  const float* a = static_cast<const float*>(args[0]);
  for_each_panel(p, p.gemm->mr, part, parts, [&](int64_t i, int64_t begin, int64_t end) {
    NBitsTile t = tile_of(p, args, i);
    if (p.m > kNBitsFewRows)
      return many_rows(p, t, a, static_cast<float*>(args[6]) + part * kNBitsChunk * 64, begin, end);
    t.a = a + begin * t.k;
    t.rows = end - begin;
    t.c += begin * t.ldc;
    p.kernels->f32->few_rows(t);
  });
  return Status::ok;
}

Status nbits_quantize_step(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const NBitsStep*>(params);
  const Range rows = part_of(p.m, part, parts);
  for (int64_t r = rows.begin; r < rows.end; ++r)
    p.kernels->s8->quantize(static_cast<const float*>(args[0]) + r * p.b.k, p.b.k, p.b.block,
                            p.zeros ? 0 : 1 << (p.b.bits - 1), quantized_row(p.quantized, args[1], r));
  return Status::ok;
}

Status nbits_s8_step(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const NBitsStep*>(params);
  for_each_panel(p, 24, part, parts, [&](int64_t i, int64_t begin, int64_t end) {
    NBitsTile t = tile_of(p, args, i);
    t.quantized = p.quantized;
    t.bytes = args[0];
    t.first = begin;
    t.rows = end - begin;
    t.c += begin * t.ldc;
    p.kernels->s8->rows(t);
  });
  return Status::ok;
}

}  // namespace fi
