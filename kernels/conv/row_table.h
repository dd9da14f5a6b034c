// SPDX-License-Identifier: Apache-2.0
// The table behind indirect convolution: for a block of output pixels of one class, where each tap finds its pixel.
#pragma once
#include <algorithm>

#include "kernels/conv/classes.h"

namespace fi {

// Entries of a table: 32 KiB of pointers stay in L1 or close to it.
constexpr int64_t kConvTable = 4096;
constexpr int64_t kConvRows = 240;
// Rows of a table, in whole register tiles.
inline int64_t conv_block(const Geometry& g, int64_t mr) {
  return std::clamp<int64_t>(kConvTable / std::max<int64_t>(1, g.taps()), mr, kConvRows) / mr * mr;
}
inline int64_t row_table_bytes(const Geometry& g, int64_t block) { return (g.taps() + 1) * block * 8; }

template <class T>
class RowTable {
 public:
  // padding: a pixel that is read outside the image. memory: row_table_bytes.
  RowTable(const Geometry& g, bool transposed, int64_t pixel_size, int64_t block, const T* x, const T* padding,
           void* memory)
      : g_(g),
        transposed_(transposed),
        pixel_size_(pixel_size),
        block_(block),
        x_(x),
        padding_(padding),
        table_(static_cast<const T**>(memory)),
        pixels_(reinterpret_cast<int64_t*>(table_ + g.taps() * block)) {}

  // Calls f() for every block of output pixels [begin, end) of the flattened batch.
  template <class F>
  void each_block(int64_t begin, int64_t end, F f) {
    for (ClassIterator it(g_, transposed_); it.next();) {
      class_ = &it;
      for (int64_t row = begin / g_.out[2]; row * g_.out[2] < end; ++row) add_row(row, begin, end, f);
      if (rows_ > 0) f();
      rows_ = 0;
    }
  }

  // The block: tap t's pixel of row r is at table()[t * block + r], its output pixel is number pixels()[r].
  const T* const* table() const { return table_; }
  const int64_t* pixels() const { return pixels_; }
  int64_t rows() const { return rows_; }
  int64_t taps() const { return class_->taps(); }
  int64_t first_tap() const { return class_->first_tap(); }

 private:
  template <class F>
  void add_row(int64_t row, int64_t begin, int64_t end, F& f) {
    const int64_t oh = row % g_.out[1], od = row / g_.out[1] % g_.out[0], n = row / g_.out[1] / g_.out[0];
    if (!class_->has(0, od) || !class_->has(1, oh)) return;
    const int64_t first = row * g_.out[2], hi = std::min(end - first, g_.out[2]), step = class_->step();
    int64_t ow = class_->first_at_least(std::max<int64_t>(0, begin - first));
    while (ow < hi) {
      const int64_t count = std::min((hi - ow + step - 1) / step, block_ - rows_);
      append(n, od, oh, ow, count);
      ow += count * step;
      if (rows_ < block_) continue;
      f();
      rows_ = 0;
    }
  }

  // Entries [i, end) from p on. By fours: the table of a 3x3 layer with 32 channels was 17 % of its time.
  static int64_t fill_pixels(const T** out, int64_t i, int64_t end, const T* p, int64_t step) {
    for (; i + 4 <= end; i += 4, p += 4 * step) {
      out[i] = p;
      out[i + 1] = p + step;
      out[i + 2] = p + 2 * step;
      out[i + 3] = p + 3 * step;
    }
    for (; i < end; ++i, p += step) out[i] = p;
    return std::max(i, end);
  }

  // `count` output pixels from ow on, in steps of the class.
  void append(int64_t n, int64_t od, int64_t oh, int64_t ow, int64_t count) {
    const T** out = table_ + rows_;
    const int64_t in_step = class_->in_step();
    class_->each_tap([&](int64_t kd, int64_t kh, int64_t kw) {
      const int64_t id = class_->source(0, od, kd), ih = class_->source(1, oh, kh), iw = class_->source(2, ow, kw);
      int64_t lo = count, hi = count;  // pixels [lo, hi) see the image, the others the padding
      const T* line = x_ + ((n * g_.in[0] + id) * g_.in[1] + ih) * g_.in[2] * pixel_size_;
      if (id >= 0 && id < g_.in[0] && ih >= 0 && ih < g_.in[1]) {
        lo = iw < 0 ? std::min(count, (-iw + in_step - 1) / in_step) : 0;
        hi = iw < g_.in[2] ? std::min(count, (g_.in[2] - iw + in_step - 1) / in_step) : 0;
      }
      int64_t i = 0;
      for (; i < lo; ++i) out[i] = padding_;
      i = fill_pixels(out, i, hi, line + (iw + i * in_step) * pixel_size_, in_step * pixel_size_);
      for (; i < count; ++i) out[i] = padding_;
      out += block_;
    });
    const int64_t pixel = ((n * g_.out[0] + od) * g_.out[1] + oh) * g_.out[2] + ow;
    int64_t* const pixels = pixels_ + rows_;
    const int64_t step = class_->step();  // a store could change what it is read from, as far as the compiler knows
    for (int64_t i = 0; i < count; ++i) pixels[i] = pixel + i * step;
    rows_ += count;
  }

  const Geometry& g_;
  bool transposed_;
  int64_t pixel_size_, block_;
  const T *x_, *padding_;
  const T** table_;
  int64_t* pixels_;
  const ClassIterator* class_ = nullptr;
  int64_t rows_ = 0;
};

}  // namespace fi
