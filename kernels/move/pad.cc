// SPDX-License-Identifier: Apache-2.0
#include "kernels/move/pad.h"

#include <algorithm>
#include <cstring>

namespace fi {
namespace {

int64_t map(PadMode mode, int64_t i, int64_t n) {
  if (i >= 0 && i < n) return i;
  if (mode == PadMode::edge) return i < 0 ? 0 : n - 1;
  const int64_t period = mode == PadMode::wrap ? n : std::max<int64_t>(2 * (n - 1), 1);
  i %= period;
  if (i < 0) i += period;
  return i < n ? i : period - i;
}

}  // namespace

Status pad_copy(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const PadCopy*>(params);
  const int last = p.rank - 1;
  int64_t rows = 1;
  for (int k = 0; k < last; ++k) rows *= p.out[k];
  const int64_t n = p.out[last], begin = p.begin[last], size = p.in[last];
  const int64_t inner = std::clamp<int64_t>(begin, 0, n), end = std::clamp<int64_t>(begin + size, inner, n);
  const Range r = part_of(rows, part, parts);
  for (int64_t row = r.begin; row < r.end; ++row) {
    const char* x = static_cast<const char*>(args[0]);
    char* y = static_cast<char*>(args[1]) + row * n * p.unit;
    for (int64_t k = last - 1, rest = row; k >= 0; rest /= p.out[k], --k)
      x += map(p.mode, rest % p.out[k] - p.begin[k], p.in[k]) * p.stride[k];
    for (int64_t o = 0; o < inner; ++o)
      std::memcpy(y + o * p.unit, x + map(p.mode, o - begin, size) * p.stride[last], p.unit);
    std::memcpy(y + inner * p.unit, x + (inner - begin) * p.unit, (end - inner) * p.unit);
    for (int64_t o = end; o < n; ++o)
      std::memcpy(y + o * p.unit, x + map(p.mode, o - begin, size) * p.stride[last], p.unit);
  }
  return Status::ok;
}

}  // namespace fi
