// SPDX-License-Identifier: Apache-2.0
// The loops of strided_copy.h over Wide<kWidest>; the file that includes this defines kWidest in fi::FI_ISA.
#include "kernels/move/strided_copy.h"
#include "kernels/move/wide.h"

namespace fi::FI_ISA {
namespace {

typedef uint8_t u8x1 __attribute__((may_alias));
typedef uint16_t u16x1 __attribute__((may_alias, aligned(1)));
typedef uint32_t u32x1 __attribute__((may_alias, aligned(1)));
typedef uint64_t u64x1 __attribute__((may_alias, aligned(1)));
struct u128x1 {
  u64x1 a, b;
};
template <int U>
struct ElementOf;
template <>
struct ElementOf<1> {
  using T = u8x1;
};
template <>
struct ElementOf<2> {
  using T = u16x1;
};
template <>
struct ElementOf<4> {
  using T = u32x1;
};
template <>
struct ElementOf<8> {
  using T = u64x1;
};
template <>
struct ElementOf<16> {
  using T = u128x1;
};
template <int U>
using Element = typename ElementOf<U>::T;

// Positions over the first `axes` axes of a copy, last axis fastest.
struct Walk {
  const StridedCopy& p;
  int axes;
  const char* x;
  char* y;
  int64_t at[kCopyRank];

  Walk(const StridedCopy& p, int axes, void* const* args, int64_t item)
      : p(p), axes(axes), x(static_cast<const char*>(args[0])), y(static_cast<char*>(args[1])) {
    for (int k = axes - 1; k >= 0; --k) {
      at[k] = item % p.extent[k];
      item /= p.extent[k];
      x += at[k] * p.from[k];
      y += at[k] * p.to[k];
    }
  }
  // Moves n items on, which must not go beyond the end of the last axis.
  void advance(int64_t n) {
    int k = axes - 1;
    if (k < 0) return;
    at[k] += n;
    x += n * p.from[k];
    y += n * p.to[k];
    for (; at[k] == p.extent[k] && k > 0; --k) {
      x += p.from[k - 1] - at[k] * p.from[k];
      y += p.to[k - 1] - at[k] * p.to[k];
      at[k] = 0;
      ++at[k - 1];
    }
  }
  int64_t run_left() const { return axes > 0 ? p.extent[axes - 1] - at[axes - 1] : 1; }
};

inline int64_t items_of(const StridedCopy& p, int axes) {
  int64_t n = 1;
  for (int k = 0; k < axes; ++k) n *= p.extent[k];
  return n;
}

// How a part's work is cut: whole items when there are enough of them, else a piece of every item.
struct Share {
  Range items, inner;
};
inline Share share_of(int64_t items, int64_t inner, int64_t grain, int part, int parts) {
  if (items >= parts) return {part_of(items, part, parts), {0, inner}};
  return {{0, items}, part_of(inner, part, parts, grain)};
}

using Row = Wide<kWidest>;

// Overlapping moves for the tail: below one vector, two moves of the largest power of two that fits.
template <int U>
inline bool copy_ends(char* y, const char* x, int64_t n) {
  if (n < U) return false;
  char head[U], tail[U];
  std::memcpy(head, x, U);
  std::memcpy(tail, x + n - U, U);
  std::memcpy(y, head, U);
  std::memcpy(y + n - U, tail, U);
  return true;
}
inline void copy_short(char* y, const char* x, int64_t n) {  // n < kWidest
  (kWidest > 32 && copy_ends<32>(y, x, n)) || (kWidest > 16 && copy_ends<16>(y, x, n)) || copy_ends<8>(y, x, n) ||
      copy_ends<4>(y, x, n) || copy_ends<2>(y, x, n) || copy_ends<1>(y, x, n);
}
inline void copy_row(char* y, const char* x, int64_t n) {
  if (n < kWidest) return copy_short(y, x, n);
  if (n >= 4096) {
    std::memcpy(y, x, n);
    return;
  }
  for (int64_t i = 0; i + kWidest <= n; i += kWidest) Row::load(x + i).store(y + i);
  Row::load(x + n - kWidest).store(y + n - kWidest);
}

template <int U>  // U > 0: rows of exactly U bytes
inline void copy_run(Walk& w, int64_t run, Range inner) {
  const int64_t from = w.axes ? w.p.from[w.axes - 1] : 0, to = w.axes ? w.p.to[w.axes - 1] : 0;
  for (int64_t i = 0; i < run; ++i) {
    if constexpr (U > 0)
      std::memcpy(w.y + i * to, w.x + i * from, U);
    else
      copy_row(w.y + i * to + inner.begin, w.x + i * from + inner.begin, inner.end - inner.begin);
  }
  w.advance(run);
}

inline int64_t next_run(const Walk& w, int64_t left) {
  const int64_t run = w.run_left();
  return run < left ? run : left;
}

}  // namespace

Status copy_rows(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const StridedCopy*>(params);
  const auto [items, inner] = share_of(items_of(p, p.rank), p.unit, 64, part, parts);
  if (items.begin == items.end || inner.begin == inner.end) return Status::ok;
  Walk w(p, p.rank, args, items.begin);
  const bool whole = inner.end - inner.begin == p.unit;
  for (int64_t left = items.end - items.begin; left > 0;) {
    const int64_t run = next_run(w, left);
    if (whole && p.unit == 64)
      copy_run<64>(w, run, inner);
    else if (whole && p.unit == 32)
      copy_run<32>(w, run, inner);
    else if (whole && p.unit == 16)
      copy_run<16>(w, run, inner);
    else
      copy_run<0>(w, run, inner);
    left -= run;
  }
  return Status::ok;
}

namespace {

inline void fill_row(char* y, const char* pattern, int64_t n) {
  const Row v = Row::load(pattern);
  int64_t i = 0;
  for (; i + kWidest <= n; i += kWidest) v.store(y + i);
  copy_short(y + i, pattern, n - i);
}

template <int U>
inline void copy_line(const StridedCopy& p, const char* x, char* y, Range r) {
  const int64_t from = p.from[p.rank - 1], to = p.to[p.rank - 1];
  for (int64_t i = r.begin; i < r.end; ++i)
    *reinterpret_cast<Element<U>*>(y + i * to) = *reinterpret_cast<const Element<U>*>(x + i * from);
}

}  // namespace

Status copy_fill(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const StridedCopy*>(params);
  const int outer = p.rank - 1;
  const auto [items, inner] = share_of(items_of(p, outer), p.extent[outer], 64, part, parts);
  if (items.begin == items.end) return Status::ok;
  char pattern[kWidest];
  Walk w(p, outer, args, items.begin);
  for (int64_t i = items.begin; i < items.end; ++i, w.advance(1)) {
    for (int64_t b = 0; b < kWidest; b += p.unit) std::memcpy(pattern + b, w.x, p.unit);
    fill_row(w.y + inner.begin * p.unit, pattern, (inner.end - inner.begin) * p.unit);
  }
  return Status::ok;
}

Status copy_strided(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const StridedCopy*>(params);
  const int outer = p.rank - 1;
  const auto [items, inner] = share_of(items_of(p, outer), p.extent[outer], 64, part, parts);
  if (items.begin == items.end) return Status::ok;
  Walk w(p, outer, args, items.begin);
  for (int64_t i = items.begin; i < items.end; ++i, w.advance(1)) {
    switch (p.unit) {
      case 1:
        copy_line<1>(p, w.x, w.y, inner);
        break;
      case 2:
        copy_line<2>(p, w.x, w.y, inner);
        break;
      case 4:
        copy_line<4>(p, w.x, w.y, inner);
        break;
      case 8:
        copy_line<8>(p, w.x, w.y, inner);
        break;
      default:
        copy_line<16>(p, w.x, w.y, inner);
        break;
    }
  }
  return Status::ok;
}

}  // namespace fi::FI_ISA
