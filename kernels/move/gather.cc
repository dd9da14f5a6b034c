// SPDX-License-Identifier: Apache-2.0
#include "kernels/move/gather.h"

#include <cstring>

namespace fi {
namespace {

// Row sizes known to the compiler become single moves; 0: any size.
template <int kRow, class I>
Status gather_range(const Gather& p, const I* index, const char* x, char* y, Range items) {
  const int64_t row = kRow ? kRow : p.row, plane = p.extent * row;
  int64_t n = items.begin % p.count;
  x += items.begin / p.count * plane;
  for (int64_t item = items.begin; item < items.end; ++item) {
    int64_t i;
    if (!wrap_index(index[n], p.extent, i)) return wrong_index(index[n], p.extent);
    std::memcpy(y + item * row, x + i * row, row);
    if (++n == p.count) {
      n = 0;
      x += plane;
    }
  }
  return Status::ok;
}

template <class I>
Status gather_rows(const Gather& p, const I* index, void* const* args, Range items) {
  const auto* x = static_cast<const char*>(args[0]);
  auto* y = static_cast<char*>(args[2]);
  switch (p.row) {
    case 1:
      return gather_range<1>(p, index, x, y, items);
    case 2:
      return gather_range<2>(p, index, x, y, items);
    case 4:
      return gather_range<4>(p, index, x, y, items);
    case 8:
      return gather_range<8>(p, index, x, y, items);
    case 16:
      return gather_range<16>(p, index, x, y, items);
    default:
      return gather_range<0>(p, index, x, y, items);
  }
}

template <int U, class I>
Status pick_line(const GatherElements& p, const I* index, const char* x, char* y) {
  const int last = p.rank - 1;
  const int64_t along = p.axis == last ? 0 : U, step = p.stride[p.axis];
  for (int64_t j = 0; j < p.shape[last]; ++j) {
    int64_t i;
    if (!wrap_index(index[j], p.extent, i)) return wrong_index(index[j], p.extent);
    std::memcpy(y + j * U, x + j * along + i * step, U);
  }
  return Status::ok;
}

template <class I>
Status pick_lines(const GatherElements& p, const I* index, void* const* args, Range lines) {
  const int64_t n = p.shape[p.rank - 1];
  for (int64_t line = lines.begin; line < lines.end; ++line) {
    const char* x = static_cast<const char*>(args[0]);
    for (int64_t k = p.rank - 2, rest = line; k >= 0; rest /= p.shape[k], --k)
      if (k != p.axis) x += rest % p.shape[k] * p.stride[k];
    const I* at = index + line * n;
    char* y = static_cast<char*>(args[2]) + line * n * p.unit;
    Status s;
    switch (p.unit) {
      case 1:
        s = pick_line<1>(p, at, x, y);
        break;
      case 2:
        s = pick_line<2>(p, at, x, y);
        break;
      case 4:
        s = pick_line<4>(p, at, x, y);
        break;
      case 8:
        s = pick_line<8>(p, at, x, y);
        break;
      default:
        s = pick_line<16>(p, at, x, y);
        break;
    }
    if (s != Status::ok) return s;
  }
  return Status::ok;
}

}  // namespace

Status gather(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const Gather*>(params);
  const Range items = part_of(p.outer * p.count, part, parts);
  return with_index(p.index, args[1], [&](auto* index) { return gather_rows(p, index, args, items); });
}

Status gather_elements(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const GatherElements*>(params);
  int64_t lines = 1;
  for (int k = 0; k < p.rank - 1; ++k) lines *= p.shape[k];
  return with_index(p.index, args[1],
                    [&](auto* index) { return pick_lines(p, index, args, part_of(lines, part, parts)); });
}

Status gather_nd(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const GatherND*>(params);
  const Range items = part_of(p.batches * p.count, part, parts);
  return with_index(p.index, args[1], [&](auto* index) {
    for (int64_t item = items.begin; item < items.end; ++item) {
      const char* x = static_cast<const char*>(args[0]) + item / p.count * p.batch_bytes;
      for (int d = 0; d < p.depth; ++d) {
        int64_t i;
        const auto given = index[item * p.depth + d];
        if (!wrap_index(given, p.extent[d], i)) return wrong_index(given, p.extent[d]);
        x += i * p.stride[d];
      }
      std::memcpy(static_cast<char*>(args[2]) + item * p.row, x, p.row);
    }
    return Status::ok;
  });
}

}  // namespace fi
