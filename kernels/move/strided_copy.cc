// SPDX-License-Identifier: Apache-2.0
#include "kernels/move/strided_copy.h"

#include <algorithm>

#include "kernels/move/transpose.h"

namespace fi {

#define FI_KERNEL(isa, mode, symbol)                  \
  namespace isa {                                     \
  Status symbol(const void*, void* const*, int, int); \
  }
#include "kernels/move/kernels.inc"
#undef FI_KERNEL

namespace {

struct Row {
  Isa isa;
  CopyMode mode;
  CopyKernel kernel;
};
constexpr Row kRows[] = {
#define FI_KERNEL(isa, mode, symbol) {Isa::isa, CopyMode::mode, {#symbol "_" #isa, isa::symbol}},
#include "kernels/move/kernels.inc"
#undef FI_KERNEL
};

bool is_element(int64_t bytes) { return bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8 || bytes == 16; }

}  // namespace

void StridedCopy::axis(int64_t n, int64_t f, int64_t t) {
  if (n == 1) return;
  if (rank > 0 && extent[rank - 1] > 0 && from[rank - 1] == f * n && to[rank - 1] == t * n) {
    extent[rank - 1] *= n;
    from[rank - 1] = f;
    to[rank - 1] = t;
    return;
  }
  if (rank == kCopyRank) throw CopyTooDeep(words("a copy over more than ", kCopyRank, " axes that cannot be merged"));
  extent[rank] = n;
  from[rank] = f;
  to[rank] = t;
  ++rank;
}

void StridedCopy::finish() {
  if (std::find(extent, extent + rank, 0) != extent + rank) {
    rank = 1;
    extent[0] = from[0] = to[0] = 0;
    return;
  }
  const bool contiguous = rank > 0 && from[rank - 1] == unit && to[rank - 1] == unit;
  if (contiguous) unit *= extent[--rank];
  mode = CopyMode::rows;
  if (rank == 0 || !is_element(unit)) return;
  const int last = rank - 1;
  mode = to[last] == unit && from[last] == 0 ? CopyMode::fill : CopyMode::strided;
  if (to[last] != unit || unit > 8) return;
  for (int k = last - 1; k >= 0; --k)
    if (from[k] == unit) {
      std::rotate(extent + k, extent + k + 1, extent + last);
      std::rotate(from + k, from + k + 1, from + last);
      std::rotate(to + k, to + k + 1, to + last);
      mode = CopyMode::transpose;
      return;
    }
}

int64_t StridedCopy::bytes() const {
  int64_t n = unit;
  for (int k = 0; k < rank; ++k) n *= extent[k];
  return n;
}

CopyKernel select_copy(Isa isa, const StridedCopy& copy) {
  for (const Row& row : kRows)
    if (row.isa <= isa && row.mode == copy.mode) return row.kernel;
  throw Error("no copy kernel");
}

double cost_of(const StridedCopy& copy) {
  const double bytes = static_cast<double>(copy.bytes());
  switch (copy.mode) {
    case CopyMode::rows:
      return bytes / 16 + 8 * bytes / static_cast<double>(copy.unit);
    case CopyMode::fill:
      return bytes / 32;
    case CopyMode::strided:
      return 2 * bytes / static_cast<double>(copy.unit);
    case CopyMode::transpose:
      return bytes / 8;
  }
  return bytes;
}

StridedCopy transpose_copy(const Shape& in, std::span<const int> perm, int64_t unit) {
  StridedCopy copy(unit);
  const Shape from = strides_of(in);
  const int rank = in.rank();
  int64_t to[kMaxRank];
  int64_t step = unit;
  for (int k = rank - 1; k >= 0; --k) {
    to[k] = step;
    step *= std::max<int64_t>(in[perm[k]], 1);
  }
  for (int k = 0; k < rank; ++k) copy.axis(in[perm[k]], from[perm[k]] * unit, to[k]);
  copy.finish();
  return copy;
}

StridedCopy transpose_copy(int64_t batch, int64_t rows, int64_t cols, int64_t unit) {
  const int perm[] = {0, 2, 1};
  return transpose_copy(Shape{batch, rows, cols}, perm, unit);
}

}  // namespace fi
