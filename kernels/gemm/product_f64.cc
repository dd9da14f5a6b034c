// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm/product_f64.h"

#include <algorithm>

namespace fi {
namespace {

constexpr int64_t kCols = kTileF64Cols;

int64_t panels_of(int64_t n) { return (n + kCols - 1) / kCols; }

// All of k for one panel of columns. pack(k, depth, to): rows of kCols elements.
template <class Pack>
void panel(TileF64 t, int64_t k, TileF64Fn tile, Pack pack) {
  alignas(64) double block[kTileF64Depth * kCols];
  t.b = block;
  const double* a = t.a;
  t.first = true;
  for (int64_t at = 0; at == 0 || at < k; at += kTileF64Depth, t.first = false) {
    t.depth = std::min(kTileF64Depth, k - at);
    pack(at, t.depth, block);
    t.a = a + at * t.a_k;
    tile(t);
  }
}

}  // namespace

Status matmul_f64_step(const void* params, void* const* args, int part, int parts) {
  const auto& q = *static_cast<const MatMulF64*>(params);
  const PlainMatMul& p = q.shape;
  const int64_t panels = panels_of(p.n);
  int64_t batches = 1;
  for (int d = 0; d < p.batch_rank; ++d) batches *= p.batch[d];
  const Range range = part_of(batches * panels, part, parts);
  for (int64_t u = range.begin; u < range.end; ++u) {
    const double *a = static_cast<const double*>(args[0]), *b = static_cast<const double*>(args[1]);
    const int64_t i = u / panels, first = u % panels * kCols, cols = std::min(kCols, p.n - first);
    for (int64_t d = p.batch_rank - 1, index = i; d >= 0; index /= p.batch[d--]) {
      a += index % p.batch[d] * p.a_batch[d];
      b += index % p.batch[d] * p.b_batch[d];
    }
    double* y = static_cast<double*>(args[3]) + i * p.m * p.n + first;
    const TileF64 t{p.m, 0, cols, a, p.a_m, p.a_k, nullptr, y, p.n, true};
    panel(t, p.k, q.tile, [&](int64_t k, int64_t depth, double* to) {
      for (int64_t r = 0; r < depth; ++r)
        for (int64_t j = 0; j < kCols; ++j) to[r * kCols + j] = j < cols ? b[(k + r) * p.b_k + (first + j) * p.b_n] : 0;
    });
    const auto* c = static_cast<const double*>(args[2]);
    if (p.alpha == 1 && !c) continue;
    for (int64_t m = 0; m < p.m; ++m)
      for (int64_t j = 0; j < cols; ++j) {
        double& v = y[m * p.n + j];
        v = p.alpha * v + (c ? p.beta * c[m * p.c_m + (first + j) * p.c_n] : 0);
      }
  }
  return Status::ok;
}

namespace {

// Where the taps of one panel's pixels begin: the input's coordinates for tap 0.
struct Pixels {
  int64_t at[kCols][3];
};

Pixels pixels_of(const ConvF64& p, int64_t first, int64_t cols) {
  Pixels s{};
  for (int64_t j = 0; j < cols; ++j)
    for (int64_t a = 2, rest = first + j; a >= 0; rest /= p.out[a--])
      s.at[j][a] = rest % p.out[a] * p.stride[a] - p.pad[a];
  return s;
}

// Row k = (channel, tap) of the panel: the input under that tap for every pixel.
void gather_taps(const ConvF64& p, const Pixels& s, const double* x, int64_t k, int64_t cols, double* to) {
  int64_t offset[3];
  for (int a = 2; a >= 0; k /= p.kernel[a--]) offset[a] = k % p.kernel[a] * p.dilation[a];
  const double* channel = x + k * p.in[0] * p.in[1] * p.in[2];
  for (int64_t j = 0; j < kCols; ++j) {
    bool inside = j < cols;
    int64_t at = 0;
    for (int a = 0; a < 3; ++a) {
      const int64_t i = s.at[j][a] + offset[a];
      inside = inside && i >= 0 && i < p.in[a];
      at = at * p.in[a] + i;
    }
    to[j] = inside ? channel[at] : 0;
  }
}

}  // namespace

Status conv_f64_step(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const ConvF64*>(params);
  const int64_t in = p.in[0] * p.in[1] * p.in[2], out = p.out[0] * p.out[1] * p.out[2];
  const int64_t k = p.in_per_group * p.kernel[0] * p.kernel[1] * p.kernel[2], panels = panels_of(out);
  const Range range = part_of(p.batch * p.groups * panels, part, parts);
  for (int64_t u = range.begin; u < range.end; ++u) {
    const int64_t image = u / panels, g = image % p.groups, first = u % panels * kCols;
    const int64_t cols = std::min(kCols, out - first);
    const double* x = static_cast<const double*>(args[0]) + image * p.in_per_group * in;
    const double* w = static_cast<const double*>(args[1]) + g * p.out_per_group * k;
    double* y = static_cast<double*>(args[3]) + image * p.out_per_group * out + first;
    const Pixels pixels = pixels_of(p, first, cols);
    const TileF64 t{p.out_per_group, 0, cols, w, k, 1, nullptr, y, out, true};
    panel(t, k, p.tile, [&](int64_t from, int64_t depth, double* to) {
      for (int64_t r = 0; r < depth; ++r) gather_taps(p, pixels, x, from + r, cols, to + r * kCols);
    });
    if (const auto* bias = static_cast<const double*>(args[2]))
      for (int64_t m = 0; m < p.out_per_group; ++m)
        for (int64_t j = 0; j < cols; ++j) y[m * out + j] += bias[g * p.out_per_group + m];
  }
  return Status::ok;
}

}  // namespace fi
