// SPDX-License-Identifier: Apache-2.0
// Small tables for signal processing (windows, mel filter bank), computed in double, and determinants.
#include <cmath>
#include <numbers>

#include "csrc/ops/scalar_input.h"

namespace fi {
namespace {

constexpr double kPi = std::numbers::pi;

DType table_type(PlanContext& ctx, const Node& node) {
  const auto t = static_cast<DType>(node.attributes.i("output_datatype", static_cast<int>(DType::f32)));
  if (t != DType::f32 && t != DType::f64) ctx.not_native(words("a table of ", name_of(t)));
  return t;
}

void put(DType t, void* y, int64_t i, double v) {
  if (t == DType::f32)
    static_cast<float*>(y)[i] = static_cast<float>(v);
  else
    static_cast<double*>(y)[i] = v;
}

// w(n) = c0 - c1·cos(2πn/N) + c2·cos(4πn/N), N = size or size - 1 (symmetric)
struct Window {
  DType dtype;
  int64_t size, period;
  double c0, c1, c2;
};
Status window(const void* params, void* const* args, int, int) {
  const auto& p = *static_cast<const Window*>(params);
  for (int64_t n = 0; n < p.size; ++n) {
    const double x = 2 * kPi * static_cast<double>(n) / static_cast<double>(p.period);
    put(p.dtype, args[0], n, p.c0 - p.c1 * std::cos(x) + p.c2 * std::cos(2 * x));
  }
  return Status::ok;
}

void plan_window(PlanContext& ctx, const Node& node, double c0, double c1, double c2) {
  const DType t = table_type(ctx, node);
  const int64_t size = require_whole_number(ctx, 0);
  check(size >= 0, "window size is ", size);
  const Window p{t, size, node.attributes.i("periodic", 1) ? size : size - 1, c0, c1, c2};
  const Operand y = ctx.output(0, t, Shape{size});
  if (size > 0) ctx.step("window", window, p, {y});
}
void plan_hann(PlanContext& ctx, const Node& node) { plan_window(ctx, node, 0.5, 0.5, 0); }
void plan_hamming(PlanContext& ctx, const Node& node) { plan_window(ctx, node, 25.0 / 46, 21.0 / 46, 0); }
void plan_blackman(PlanContext& ctx, const Node& node) { plan_window(ctx, node, 0.42, 0.5, 0.08); }

// ------------------------------------------------------------------------------------------------ MelWeightMatrix

struct Mel {
  DType dtype;
  int64_t bins, dft_length, rate;
  double low, high;  // hertz
};

double mel_of(double hertz) { return 2595 * std::log1p(hertz / 700) / std::numbers::ln10; }
double hertz_of(double mel) { return 700 * std::expm1(mel / 2595 * std::numbers::ln10); }

// y[bin, m]: a triangle over the spectrogram bins between the m-th and the (m+2)-th of bins + 2 steps of the mel scale.
Status mel_matrix(const void* params, void* const* args, int, int) {
  const auto& p = *static_cast<const Mel*>(params);
  const int64_t rows = p.dft_length / 2 + 1;
  const double low = mel_of(p.low), step = (mel_of(p.high) - low) / static_cast<double>(p.bins + 2);
  auto edge = [&](int64_t i) {
    const double hertz = hertz_of(static_cast<double>(i) * step + low);
    return static_cast<int64_t>(
        std::floor(static_cast<double>(p.dft_length + 1) * hertz / static_cast<double>(p.rate)));
  };
  std::memset(args[0], 0, rows * p.bins * size_of(p.dtype));
  for (int64_t m = 0; m < p.bins; ++m) {
    const int64_t left = edge(m), center = edge(m + 1), right = edge(m + 2);
    if (left < 0 || right > rows || center >= rows) return Status::bad_value;
    if (left == center) put(p.dtype, args[0], center * p.bins + m, 1);
    for (int64_t j = left; left < center && j <= center; ++j)
      put(p.dtype, args[0], j * p.bins + m, static_cast<double>(j - left) / static_cast<double>(center - left));
    for (int64_t j = center; j < right; ++j)
      put(p.dtype, args[0], j * p.bins + m, static_cast<double>(right - j) / static_cast<double>(right - center));
  }
  return Status::ok;
}

void plan_mel(PlanContext& ctx, const Node& node) {
  const Mel p{table_type(ctx, node),        require_whole_number(ctx, 0), require_whole_number(ctx, 1),
              require_whole_number(ctx, 2), require_number(ctx, 3),       require_number(ctx, 4)};
  constexpr int64_t kMost = 1 << 24;
  check(p.bins >= 0 && p.bins < kMost && p.dft_length >= 1 && p.dft_length < kMost && p.rate > 0, "num_mel_bins ",
        p.bins, ", dft_length ", p.dft_length, ", sample_rate ", p.rate);
  check(p.low >= 0 && p.high >= p.low && p.high <= static_cast<double>(p.rate), "edges of ", p.low, " and ", p.high,
        " Hz at a sample rate of ", p.rate);
  const Operand y = ctx.output(0, p.dtype, Shape{p.dft_length / 2 + 1, p.bins});
  if (p.bins > 0) ctx.step("mel_matrix", mel_matrix, p, {y});
}

// ------------------------------------------------------------------------------------------------------------ Det

struct Det {
  DType dtype;
  int64_t batch, n;
};

// Gaussian elimination with row pivots, in double. args: x, y, scratch [parts, n, n].
double determinant(double* a, int64_t n) {
  double det = 1;
  for (int64_t c = 0; c < n; ++c) {
    int64_t pivot = c;
    for (int64_t r = c + 1; r < n; ++r)
      if (std::abs(a[r * n + c]) > std::abs(a[pivot * n + c])) pivot = r;
    if (a[pivot * n + c] == 0) return 0;
    for (int64_t k = c; pivot != c && k < n; ++k) std::swap(a[pivot * n + k], a[c * n + k]);
    det *= pivot != c ? -a[c * n + c] : a[c * n + c];
    for (int64_t r = c + 1; r < n; ++r) {
      const double f = a[r * n + c] / a[c * n + c];
      for (int64_t k = c + 1; k < n; ++k) a[r * n + k] -= f * a[c * n + k];
    }
  }
  return det;
}
Status determinants(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const Det*>(params);
  const int64_t size = p.n * p.n;
  auto* a = static_cast<double*>(args[2]) + part * size;
  const Range r = part_of(p.batch, part, parts);
  for (int64_t b = r.begin; b < r.end; ++b) {
    for (int64_t i = 0; i < size; ++i)
      a[i] = p.dtype == DType::f32 ? static_cast<const float*>(args[0])[b * size + i]
                                   : static_cast<const double*>(args[0])[b * size + i];
    put(p.dtype, args[1], b, determinant(a, p.n));
  }
  return Status::ok;
}

void plan_det(PlanContext& ctx, const Node&) {
  const Shape in = ctx.shape(0);
  const DType t = ctx.dtype(0);
  const int rank = in.rank();
  check(rank >= 2 && in[rank - 1] == in[rank - 2], "input is ", in, ", needed: square matrices");
  if (t != DType::f32 && t != DType::f64) ctx.not_native(words("Det of ", name_of(t)));
  const Shape out(in.begin(), in.end() - 2);
  const Det p{t, out.elements(), in.back()};
  const Operand y = ctx.output(0, t, out);
  if (p.batch == 0) return;
  const int parts = ctx.parts_for(double(in.elements()) * double(p.n));
  ctx.step("determinant", determinants, p, {ctx.in(0), y, ctx.scratch(sizeof(double) * p.n * p.n * parts)}, parts);
}

}  // namespace

std::unique_ptr<Op> make_hann_window(BuildContext& c) { return make_plain<plan_hann>(c); }
std::unique_ptr<Op> make_hamming_window(BuildContext& c) { return make_plain<plan_hamming>(c); }
std::unique_ptr<Op> make_blackman_window(BuildContext& c) { return make_plain<plan_blackman>(c); }
std::unique_ptr<Op> make_mel_weight_matrix(BuildContext& c) { return make_plain<plan_mel>(c); }
std::unique_ptr<Op> make_det(BuildContext& c) { return make_plain<plan_det>(c); }

}  // namespace fi
