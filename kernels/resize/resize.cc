// SPDX-License-Identifier: Apache-2.0
#include "kernels/resize/resize.h"

#include <cstring>

namespace fi {

#define FI_KERNEL(isa, symbol)                        \
  namespace isa {                                     \
  Status symbol(const void*, void* const*, int, int); \
  }
#include "kernels/resize/kernels.inc"
#undef FI_KERNEL

ResizeKernel select_resize(Isa isa, const ResizeRows&) {
  struct Row {
    Isa isa;
    ResizeKernel kernel;
  };
  static const Row rows[] = {
#define FI_KERNEL(isa, symbol) {Isa::isa, {#symbol "_" #isa, &isa::symbol}},
#include "kernels/resize/kernels.inc"
#undef FI_KERNEL
  };
  const Row* row = rows;
  while (row->isa > isa) ++row;
  return row->kernel;
}

size_t resize_scratch(const ResizeRows& q, int parts) {
  return static_cast<size_t>((q.b_in * q.inner + 31) / 16 * 16 * parts) * sizeof(float);
}

double cost_of(const ResizeRows& q) {
  const double rows = static_cast<double>(q.outer * q.a_out * q.inner);
  return rows * static_cast<double>(q.b_in * q.a_taps + q.b_out * q.b_taps) / (q.inner < 4 ? 2 : 8);
}

namespace {

// A row of pixels of kUnit bytes (0: `unit`), gathered.
template <int kUnit>
void gather(const char* x, const int32_t* index, int64_t n, int64_t unit, char* y) {
  const int64_t size = kUnit ? kUnit : unit;
  for (int64_t j = 0; j < n; ++j) std::memcpy(y + j * size, x + index[j] * size, static_cast<size_t>(size));
}
void gather_any(const char* x, const int32_t* index, int64_t n, int64_t unit, char* y) {
  switch (unit) {
    case 1:
      return gather<1>(x, index, n, unit, y);
    case 2:
      return gather<2>(x, index, n, unit, y);
    case 4:
      return gather<4>(x, index, n, unit, y);
    case 8:
      return gather<8>(x, index, n, unit, y);
    default:
      return gather<0>(x, index, n, unit, y);
  }
}

void fill(char* y, int64_t bytes, const ResizeNearestRows& p) {
  for (int64_t i = 0; i < bytes; i += p.unit) std::memcpy(y + i, p.extrapolation, static_cast<size_t>(p.unit));
}

}  // namespace

Status resize_nearest_step(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const ResizeNearestRows*>(params);
  const ResizeRows& q = p.rows;
  const ResizeTable a = resize_table(args[1], q.a_out, q.a_taps), b = resize_table(args[2], q.b_out, q.b_taps);
  const int64_t pixel = q.inner * p.unit, in_row = q.b_in * pixel, out_row = q.b_out * pixel;
  const auto [begin, end] = part_of(q.outer * q.a_out, part, parts);
  for (int64_t row = begin; row < end; ++row) {
    const int64_t i = row % q.a_out, from = q.a_taps ? a.index[i] : i;
    char* y = static_cast<char*>(args[3]) + row * out_row;
    if (q.a_taps && a.outside[i]) {
      fill(y, out_row, p);
      continue;
    }
    // Upsampling repeats rows.
    if (q.a_taps && row > begin && i > 0 && from == a.index[i - 1] && !a.outside[i - 1]) {
      std::memcpy(y, y - out_row, static_cast<size_t>(out_row));
      continue;
    }
    const char* x = static_cast<const char*>(args[0]) + (row / q.a_out * q.a_in + from) * in_row;
    if (!q.b_taps) {
      std::memcpy(y, x, static_cast<size_t>(out_row));
      continue;
    }
    gather_any(x, b.index, q.b_out, pixel, y);
    for (int64_t j = 0; j < q.b_out; ++j)
      if (b.outside[j]) fill(y + j * pixel, pixel, p);
  }
  return Status::ok;
}

}  // namespace fi
