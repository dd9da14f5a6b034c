// SPDX-License-Identifier: Apache-2.0
// The driver: tables of row pointers, panels, parts. All arithmetic on data is in the GEMM microkernel.
#include "kernels/conv/conv.h"

#include <algorithm>
#include <cstring>

#include "kernels/conv/classes.h"

namespace fi {
namespace {

// Entries of the pointer table: 32 KiB, so that it stays in L1 or close to it.
constexpr int64_t kTable = 4096;
constexpr int64_t kMaxRows = 240;
// Products per microkernel call when a panel serves many rows: 1024 x 64 floats are a quarter of a 1 MiB L2.
constexpr int64_t kDepth = 1024;

int64_t zero_floats(const ConvF32& p) { return std::max(p.pixel_floats, p.k); }

// Bytes of one part's scratch: the table, two columns of output rows, the line of zeros. Whole pairs of lines, so that
// parts do not share one.
size_t part_bytes(const ConvF32& p) {
  const int64_t bytes = (p.g.taps() + 2) * p.block * 8 + zero_floats(p) * 4;
  return static_cast<size_t>((bytes + 127) / 128 * 128);
}

struct Bound {
  const float *x, *w, *bias, *residual;
  float* y;
};

// One part's work.
class Part {
 public:
  Part(const ConvF32& p, const Bound& b, char* scratch)
      : p_(p), b_(b), table_(reinterpret_cast<const float**>(scratch)) {
    c_rows_ = const_cast<float**>(table_ + p.g.taps() * p.block);
    c_now_ = c_rows_ + p.block;
    zeros_ = reinterpret_cast<float*>(c_now_ + p.block);
    std::memset(zeros_, 0, static_cast<size_t>(zero_floats(p)) * 4);
    first_panel_ = {p.g.taps(), p.k, p.out_channels / p.groups, p.kernel->nr};
  }

  // Output pixels [begin, end) of the whole batch, output channels [c0, c1) of each group.
  void run(int64_t begin, int64_t end, int64_t c0, int64_t c1) {
    c0_ = c0;
    c1_ = c1;
    for (ClassIterator it(p_.g, p_.transposed); it.next();) {
      class_ = &it;
      rows_of_class(begin, end);
      flush();
    }
  }

 private:
  void rows_of_class(int64_t begin, int64_t end) {
    const Geometry& g = p_.g;
    for (int64_t row = begin / g.out[2]; row * g.out[2] < end; ++row) {
      const int64_t oh = row % g.out[1], od = row / g.out[1] % g.out[0], n = row / g.out[1] / g.out[0];
      if (!class_->has(0, od) || !class_->has(1, oh)) continue;
      const int64_t first = row * g.out[2];
      const int64_t hi = std::min(end - first, g.out[2]), step = class_->step();
      int64_t ow = class_->first_at_least(std::max<int64_t>(0, begin - first));
      while (ow < hi) {
        const int64_t count = std::min((hi - ow + step - 1) / step, p_.block - rows_);
        append(n, od, oh, ow, count);
        ow += count * step;
        if (rows_ == p_.block) flush();
      }
    }
  }

  // `count` output pixels from ow on, in steps of the class.
  void append(int64_t n, int64_t od, int64_t oh, int64_t ow, int64_t count) {
    const Geometry& g = p_.g;
    const float** out = table_ + rows_;
    const int64_t in_step = class_->in_step();
    class_->each_tap([&](int64_t kd, int64_t kh, int64_t kw) {
      const int64_t id = class_->source(0, od, kd), ih = class_->source(1, oh, kh), iw = class_->source(2, ow, kw);
      if (id < 0 || id >= g.in[0] || ih < 0 || ih >= g.in[1]) {
        std::fill(out, out + count, zeros_);
      } else {
        const float* line = b_.x + ((n * g.in[0] + id) * g.in[1] + ih) * g.in[2] * p_.pixel_floats;
        // Pixels [lo, hi) of the run see the image, the others the padding beside it.
        const int64_t lo = iw < 0 ? std::min(count, (-iw + in_step - 1) / in_step) : 0;
        const int64_t hi = iw < g.in[2] ? std::min(count, (g.in[2] - iw + in_step - 1) / in_step) : 0;
        int64_t i = 0;
        for (; i < lo; ++i) out[i] = zeros_;
        for (; i < hi; ++i) out[i] = line + (iw + i * in_step) * p_.pixel_floats;
        for (; i < count; ++i) out[i] = zeros_;
      }
      out += p_.block;
    });
    const int64_t pixel = ((n * g.out[0] + od) * g.out[1] + oh) * g.out[2] + ow;
    if (rows_ == 0) first_pixel_ = pixel;
    if (p_.transposed)
      for (int64_t i = 0; i < count; ++i) c_rows_[rows_ + i] = b_.y + (pixel + i * class_->step()) * p_.out_channels;
    rows_ += count;
  }

  void flush() {
    if (rows_ == 0) return;
    for (int64_t group = 0; group < p_.groups; ++group)
      for (int64_t i = 0; i < panel_count(first_panel_); ++i) panel(group, i);
    rows_ = 0;
  }

  void panel(int64_t group, int64_t i) {
    const int64_t begin = i * first_panel_.nr, c0 = std::max(c0_, begin);
    const int64_t c1 = std::min(c1_, begin + panel_cols(first_panel_, i));
    if (c0 >= c1) return;
    const int64_t channel = group * first_panel_.n + c0;
    GemmTile t;
    t.a_tap = p_.block;
    t.rows = rows_;
    t.cols = c1 - c0;
    t.ldb = panel_width(first_panel_, i);
    t.ldc = t.ld_residual = p_.out_channels;
    t.bias = b_.bias ? b_.bias + channel : nullptr;
    t.epilogue = p_.epilogue;
    if (p_.transposed) {
      for (int64_t r = 0; r < rows_; ++r) c_now_[r] = c_rows_[r] + channel;
      t.c_rows = c_now_;
    } else {
      t.c = b_.y + first_pixel_ * p_.out_channels + channel;
      if (b_.residual) t.residual = b_.residual + first_pixel_ * p_.out_channels + channel;
    }
    const float* weights = b_.w + group * packed_floats(first_panel_) + panel_offset(first_panel_, i) +
                           class_->first_tap() * p_.k * t.ldb + (c0 - begin);
    reduce(t, weights, group * p_.k);
  }

  // Cuts the reduction where the panel would not stay in L2 from one tile of rows to the next.
  void reduce(GemmTile& t, const float* weights, int64_t a_offset) {
    const int64_t taps = class_->taps(), all = taps * p_.k;
    const bool cut = all > kDepth * 3 / 2 && rows_ > p_.kernel->mr;
    const int64_t depth = cut ? kDepth : std::max<int64_t>(all, 1);
    const int64_t step = std::max<int64_t>(1, p_.k > 0 ? depth / p_.k : taps);
    if (all == 0) {
      t.taps = 0;
      t.a = table_;
      t.b = weights;
      return p_.kernel->run(t);
    }
    for (int64_t tap = 0; tap < taps; tap += step) {
      t.a = table_ + tap * p_.block;
      t.taps = std::min(step, taps - tap);
      for (int64_t k = 0; k < p_.k; k += t.k) {
        t.k = step > 1 ? p_.k : std::min(depth, p_.k - k);
        t.a_offset = a_offset + k;
        t.b = weights + (tap * p_.k + k) * t.ldb;
        t.accumulate = tap + k > 0;
        t.partial = tap + t.taps < taps || k + t.k < p_.k;
        p_.kernel->run(t);
      }
    }
  }

  const ConvF32& p_;
  Bound b_;
  const float** table_;
  float **c_rows_, **c_now_, *zeros_;
  GemmPanels first_panel_;
  const ClassIterator* class_ = nullptr;
  int64_t rows_ = 0, first_pixel_ = 0, c0_ = 0, c1_ = 0;
};

}  // namespace

double conv_f32_prepare(ConvF32& p) {
  const int64_t mr = p.kernel->mr, pixels = p.batch * p.g.out_pixels();
  p.block = std::clamp<int64_t>(kTable / std::max<int64_t>(1, p.g.taps()), mr, kMaxRows) / mr * mr;
  // With few pixels every core would stream all weights from memory.
  p.split_channels = !p.transposed && p.groups == 1 && p.g.out_pixels() <= 64 && pixels < 256 && p.out_channels >= 64;
  const double macs = static_cast<double>(p.transposed ? p.batch * p.g.in_pixels() : pixels) *
                      static_cast<double>(p.g.taps() * p.k) * static_cast<double>(p.out_channels);
  return macs / 32 + static_cast<double>(pixels) * static_cast<double>(p.g.taps() + p.out_channels) / 8;
}

size_t conv_f32_scratch(const ConvF32& p, int parts) { return part_bytes(p) * static_cast<size_t>(parts); }

Status conv_f32_step(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const ConvF32*>(params);
  const Bound b{static_cast<const float*>(args[0]), static_cast<const float*>(args[1]),
                static_cast<const float*>(args[2]), static_cast<const float*>(args[3]), static_cast<float*>(args[4])};
  const int64_t pixels = p.batch * p.g.out_pixels(), columns = p.out_channels / p.groups;
  if (pixels == 0 || columns == 0) return Status::ok;
  Part work(p, b, static_cast<char*>(args[5]) + part_bytes(p) * static_cast<size_t>(part));
  if (p.split_channels) {
    const auto [c0, c1] = part_of(columns, part, parts, 16);
    work.run(0, pixels, c0, c1);
  } else {
    const auto [begin, end] = part_of(pixels, part, parts, p.kernel->mr);
    work.run(begin, end, 0, columns);
  }
  return Status::ok;
}

Status conv_pad_step(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const ConvPad*>(params);
  const auto* x = static_cast<const float*>(args[0]);
  auto* out = static_cast<float*>(args[1]);
  const Geometry& g = p.g;
  const int64_t row_floats = p.width() * p.channels;
  const auto [begin, end] = part_of(p.batch * p.depth() * p.height(), part, parts);
  for (int64_t row = begin; row < end; ++row) {
    const int64_t h = row % p.height() - g.pad[1], d = row / p.height() % p.depth() - g.pad[0];
    const int64_t n = row / p.height() / p.depth();
    float* y = out + row * row_floats;
    if (h < 0 || h >= g.in[1] || d < 0 || d >= g.in[0]) {
      std::memset(y, 0, static_cast<size_t>(row_floats) * 4);
      continue;
    }
    const int64_t left = g.pad[2] * p.channels, middle = g.in[2] * p.channels;
    std::memset(y, 0, static_cast<size_t>(left) * 4);
    std::memset(y + left + middle, 0, static_cast<size_t>(row_floats - left - middle) * 4);
    const int64_t first = (d * g.in[1] + h) * g.in[2];
    const float* from = x + n * g.in_pixels() * p.channels + first * p.from_pixel;
    y += left;
    if (p.from_channel == 1) {
      std::memcpy(y, from, static_cast<size_t>(middle) * 4);
    } else {
      for (int64_t c = 0; c < p.channels; ++c)
        for (int64_t w = 0; w < g.in[2]; ++w) y[w * p.channels + c] = from[c * p.from_channel + w];
    }
  }
  return Status::ok;
}

}  // namespace fi
