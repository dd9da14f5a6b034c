// SPDX-License-Identifier: Apache-2.0
// The transpose mode of strided_copy.h, after generic.h. In a panel, y[i·to + j·U] = x[j·from + i·U] for j < rows, i <
// cols.
//
// A tile of W-byte vectors is W/U rows by 16/U columns: lane k of vector j is loaded from row k·L + j (L = 16/U), log2
// L rounds of in-lane unpacks transpose every lane, and a result vector is W contiguous bytes of y. No shuffle crosses
// lanes: the 128-bit loads do that part. Edges use tiles that overlap their neighbours inside the same panel.

namespace fi::FI_ISA {
namespace {

struct Panel {
  const char* x;
  char* y;
  int64_t rows, cols, from, to;
};

template <int W, int U>
inline void transpose_tile(const char* x, char* y, int64_t from, int64_t to) {
  constexpr int L = 16 / U;
  using V = Wide<W>;
  V v[L], t[L];
  for (int j = 0; j < L; ++j) v[j] = V::load_lanes(x + j * from, L * from);
#pragma GCC unroll 4
  for (int n = 1; n < L; n *= 2) {
#pragma GCC unroll 8
    for (int j = 0; j < L / 2; ++j) {
      t[2 * j] = V::template unpack_low<U>(v[j], v[j + L / 2]);
      t[2 * j + 1] = V::template unpack_high<U>(v[j], v[j + L / 2]);
    }
#pragma GCC unroll 16
    for (int j = 0; j < L; ++j) v[j] = t[j];
  }
#pragma GCC unroll 16
  for (int j = 0; j < L; ++j) v[j].store(y + j * to);
}

// rows >= W/U, cols >= 16/U. Columns go by cache line so that a line of x is used up before it can be evicted.
template <int W, int U>
void transpose_tiles(const Panel& p) {
  constexpr int64_t kRows = W / U, kCols = 16 / U, kLine = 64 / U;
  for (int64_t line = 0; line < p.cols; line += kLine) {
    const int64_t end = line + kLine < p.cols ? line + kLine : p.cols;
    for (int64_t j = 0; j < p.rows; j += kRows) {
      const int64_t row = j + kRows <= p.rows ? j : p.rows - kRows;
      for (int64_t i = line; i < end; i += kCols) {
        const int64_t col = i + kCols <= p.cols ? i : p.cols - kCols;
        transpose_tile<W, U>(p.x + row * p.from + col * U, p.y + col * p.to + row * U, p.from, p.to);
      }
    }
  }
}

// R planes into one stream of R-tuples, and back: the compiler vectorises these with constant R.
template <int R, int U>
void interleave(const Panel& p) {
  auto* y = reinterpret_cast<Element<U>*>(p.y);
  for (int64_t i = 0; i < p.cols; ++i)
    for (int r = 0; r < R; ++r) y[i * R + r] = reinterpret_cast<const Element<U>*>(p.x + r * p.from)[i];
}
template <int R, int U>
void deinterleave(const Panel& p) {
  const auto* x = reinterpret_cast<const Element<U>*>(p.x);
  for (int r = 0; r < R; ++r)
    for (int64_t j = 0; j < p.rows; ++j) reinterpret_cast<Element<U>*>(p.y + r * p.to)[j] = x[j * R + r];
}

template <int U>
void transpose_narrow(const Panel& p) {
  if (p.rows == 2 && p.to == 2 * U) return interleave<2, U>(p);
  if (p.rows == 3 && p.to == 3 * U) return interleave<3, U>(p);
  if (p.cols == 2 && p.from == 2 * U) return deinterleave<2, U>(p);
  if (p.cols == 3 && p.from == 3 * U) return deinterleave<3, U>(p);
  for (int64_t i = 0; i < p.cols; ++i)
    for (int64_t j = 0; j < p.rows; ++j)
      *reinterpret_cast<Element<U>*>(p.y + i * p.to + j * U) =
          *reinterpret_cast<const Element<U>*>(p.x + j * p.from + i * U);
}

template <int W, int U>
inline bool transpose_with(const Panel& p) {
  if (W > kWidest || p.rows < W / U) return false;
  transpose_tiles<(W > kWidest ? 16 : W), U>(p);
  return true;
}
template <int U>
void transpose_panel(const Panel& p) {
  if (p.cols < 16 / U || p.rows < 16 / U) return transpose_narrow<U>(p);
  transpose_with<64, U>(p) || transpose_with<32, U>(p) || transpose_with<16, U>(p);
}

// [begin, end) of block b when `n` is cut in blocks of `size`, the last one taking the rest.
inline Range block(int64_t n, int64_t size, int64_t b, int64_t blocks) {
  return {b * size, b + 1 == blocks ? n : (b + 1) * size};
}

}  // namespace

// Panels of 256 bytes of y by 256 columns keep the pages of x in the TLB, and are the unit of work sharing.
Status copy_transpose(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const StridedCopy*>(params);
  const int outer = p.rank - 2;
  const int64_t cols = p.extent[outer], rows = p.extent[outer + 1], to = p.to[outer], from = p.from[outer + 1];
  const int64_t row_size = 256 / p.unit, col_size = 256;
  const int64_t row_blocks = rows > row_size ? rows / row_size : 1, col_blocks = cols > col_size ? cols / col_size : 1;
  const Range r = part_of(items_of(p, outer) * row_blocks * col_blocks, part, parts);
  if (r.begin == r.end) return Status::ok;
  int64_t b = r.begin % (row_blocks * col_blocks);
  Walk w(p, outer, args, r.begin / (row_blocks * col_blocks));
  for (int64_t i = r.begin; i < r.end; ++i) {
    const Range row = block(rows, row_size, b / col_blocks, row_blocks);
    const Range col = block(cols, col_size, b % col_blocks, col_blocks);
    const Panel panel{w.x + row.begin * from + col.begin * p.unit,
                      w.y + col.begin * to + row.begin * p.unit,
                      row.end - row.begin,
                      col.end - col.begin,
                      from,
                      to};
    switch (p.unit) {
      case 1:
        transpose_panel<1>(panel);
        break;
      case 2:
        transpose_panel<2>(panel);
        break;
      case 4:
        transpose_panel<4>(panel);
        break;
      default:
        transpose_panel<8>(panel);
        break;
    }
    if (++b == row_blocks * col_blocks) {
      b = 0;
      w.advance(1);
    }
  }
  return Status::ok;
}

}  // namespace fi::FI_ISA
