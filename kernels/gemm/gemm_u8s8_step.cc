// SPDX-License-Identifier: Apache-2.0
// The driver around the integer microkernel: batches, row blocks, panels, parts.
#include <algorithm>

#include "kernels/gemm/gemm_u8s8.h"

namespace fi {
namespace {

constexpr int64_t kRows = 96;  // per microkernel call: row pointers and sums on the stack; a multiple of every mr

struct QuantizedMatrices {
  const uint8_t* a;
  const char* b;
  const int32_t *a_zero, *b_zero, *bias;
  const float *row_scale, *column_scale, *float_bias;
  char* c;
  const uint8_t* residual;
};

template <class T>
const T* at(const T* p, int64_t i) {
  return p ? p + i : nullptr;
}

// Rows [begin, end) of panels [first, last) of one product.
void run_block(const GemmU8S8Step& p, const QuantizedMatrices& x, int64_t begin, int64_t end, int64_t first,
               int64_t last) {
  const U8S8Panels panels{1, p.k, p.n, p.kernel->nr};
  const uint8_t* rows[kRows];
  int32_t sums[kRows];
  GemmU8S8Tile g;
  g.a = rows;
  g.flip_a = p.flip_a;
  g.k = p.k;
  g.rows = end - begin;
  for (int64_t r = 0; r < g.rows; ++r) rows[r] = x.a + (begin + r) * p.k;
  if (x.b_zero) {
    for (int64_t r = 0; r < g.rows; ++r) sums[r] = sum_bytes(rows[r], p.k, p.flip_a);
    g.row_sum = sums;
  }
  g.a_zero_step = g.row_scale_step = p.by_rows;
  g.a_zero = x.a_zero + begin * g.a_zero_step;
  g.row_scale = at(x.row_scale, begin * g.row_scale_step);
  g.output = p.output;
  g.q = p.q;
  g.ldc = p.n;
  for (int64_t i = first; i < last; ++i) {
    const int64_t n = i * p.kernel->nr;
    g.cols = panel_cols(panels, i);
    g.width = panel_width(panels, i);
    g.b = reinterpret_cast<const int8_t*>(x.b + panel_offset(panels, i));
    g.column_sum = reinterpret_cast<const int32_t*>(x.b) + n;
    g.b_zero = at(x.b_zero, n);
    g.bias = at(x.bias, n);
    g.column_scale = at(x.column_scale, n);
    g.float_bias = at(x.float_bias, n);
    g.c = x.c + (begin * p.n + n) * static_cast<int64_t>(size_of(p.output));
    g.residual = at(x.residual, begin * p.n + n);
    p.kernel->run(g);
  }
}

}  // namespace

Status gemm_u8s8_step(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const GemmU8S8Step*>(params);
  if (p.m == 0 || p.n == 0) return Status::ok;
  const QuantizedMatrices all{static_cast<const uint8_t*>(args[0]), static_cast<const char*>(args[1]),
                              static_cast<const int32_t*>(args[2]), static_cast<const int32_t*>(args[3]),
                              static_cast<const int32_t*>(args[4]), static_cast<const float*>(args[5]),
                              static_cast<const float*>(args[6]),   static_cast<const float*>(args[7]),
                              static_cast<char*>(args[8]),          static_cast<const uint8_t*>(args[9])};
  int64_t batches = 1;
  for (int d = 0; d < p.batch_rank; ++d) batches *= p.batch[d];
  // Blocks of rows, and within them panels: few rows are cut by panels, so that every core streams its share of B only.
  const int64_t blocks = (p.m + kRows - 1) / kRows, panels = (p.n + p.kernel->nr - 1) / p.kernel->nr;
  const int64_t mr = p.kernel->mr, rows = ((p.m + blocks - 1) / blocks + mr - 1) / mr * mr;  // blocks of equal cost
  const Range range = part_of(batches * blocks * panels, part, parts);
  for (int64_t t = range.begin; t < range.end;) {
    const int64_t first = t % panels, last = std::min(panels, first + range.end - t);
    const int64_t begin = std::min(p.m, t / panels % blocks * rows), end = std::min(p.m, begin + rows);
    int64_t index = t / panels / blocks;
    QuantizedMatrices x = all;
    x.c += index * p.m * p.n * static_cast<int64_t>(size_of(p.output));
    x.residual = at(x.residual, index * p.m * p.n);
    for (int d = p.batch_rank - 1; d >= 0; index /= p.batch[d--]) {
      x.a += index % p.batch[d] * p.a_batch[d];
      x.b += index % p.batch[d] * p.b_batch[d];
    }
    run_block(p, x, begin, end, first, last);
    t += last - first;
  }
  return Status::ok;
}

Status pack_u8s8_step(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const PackU8S8Step*>(params);
  const int64_t panels = panel_count(p.panels);
  const Range range = part_of(p.matrices * panels, part, parts);
  for (int64_t t = range.begin; t < range.end; ++t) {
    const int64_t matrix = t / panels, i = t % panels;
    gemm_u8s8_pack(p.panels, static_cast<const uint8_t*>(args[0]) + matrix * p.panels.k * p.panels.n, p.flip_b, 0,
                   p.stride_k, p.stride_n, static_cast<char*>(args[1]) + matrix * packed_bytes(p.panels), i, i + 1);
  }
  return Status::ok;
}

}  // namespace fi
