// SPDX-License-Identifier: Apache-2.0
#include "kernels/spatial/sample.h"

#include <algorithm>
#include <cmath>

namespace fi {
namespace {

// Folds x at the borders until it lies between them.
float reflect(float x, float lo, float hi) {
  const float range = hi - lo;
  if (range <= 0) return lo;
  if (x >= lo && x <= hi) return x;
  const bool below = x < lo;
  const float far = below ? lo - x : x - hi, turns = std::floor(far / range), rest = far - turns * range;
  const bool even = std::fmod(turns, 2.f) == 0;
  return below == even ? lo + rest : hi - rest;
}

// The taps of one axis: which input positions (-1: outside, counts as 0), with which weights.
struct AxisTaps {
  int count;
  int64_t index[4];
  float weight[4];
};

class Axis {
 public:
  Axis(const GridSample& q, int64_t extent)
      : q_(q),
        n_(extent),
        lo_(q.align_corners ? 0.f : -0.5f),
        hi_(static_cast<float>(extent) - (q.align_corners ? 1.f : 0.5f)) {}

  AxisTaps taps(float normalised) const {
    const auto n = static_cast<float>(n_);
    float x = q_.align_corners ? (normalised + 1) / 2 * (n - 1) : ((normalised + 1) * n - 1) / 2;
    // Beyond any image, so that what follows stays within integers; NaN is outside.
    if (!(std::abs(x) < 1e9f)) x = x > 0 ? 1e9f : -1e9f;
    if (q_.mode == SampleMode::nearest) x = std::nearbyint(x);
    if (x < lo_ || x > hi_) {
      if (q_.padding == SamplePadding::border) x = std::clamp(x, 0.f, n - 1);
      if (q_.padding == SamplePadding::reflection) x = reflect(x, lo_, hi_);
    }
    AxisTaps t;
    if (q_.mode == SampleMode::nearest) {
      t.count = 1;
      t.index[0] = position(std::trunc(x));
      t.weight[0] = 1;
      return t;
    }
    const float left = std::floor(x);
    weights(x - left, t);
    for (int k = 0; k < t.count; ++k) t.index[k] = position(left + static_cast<float>(t.count == 4 ? k - 1 : k));
    return t;
  }

 private:
  int64_t position(float i) const {
    if (q_.padding == SamplePadding::zeros) return i >= 0 && i < static_cast<float>(n_) ? static_cast<int64_t>(i) : -1;
    if (q_.padding == SamplePadding::reflection) i = std::trunc(reflect(i, lo_, hi_));
    return std::clamp<int64_t>(static_cast<int64_t>(i), 0, n_ - 1);
  }

  void weights(float r, AxisTaps& t) const {
    if (q_.mode == SampleMode::linear) {
      t.count = 2;
      t.weight[0] = 1 - r;
      t.weight[1] = r;
      return;
    }
    constexpr float a = -0.75f;  // Keys' cubic convolution
    const auto inner = [](float x) { return ((a + 2) * x - (a + 3)) * x * x + 1; };
    const auto outer = [](float x) { return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a; };
    t.count = 4;
    t.weight[0] = outer(r + 1);
    t.weight[1] = inner(r);
    t.weight[2] = inner(1 - r);
    t.weight[3] = outer(2 - r);
  }

  const GridSample& q_;
  int64_t n_;
  float lo_, hi_;
};

}  // namespace

Status grid_sample_step(const void* params, void* const* args, int part, int parts) {
  const auto& q = *static_cast<const GridSample*>(params);
  const int64_t plane = q.in[0] * q.in[1] * q.in[2];
  const auto [begin, end] = part_of(q.batch * q.out_pixels, part, parts);
  for (int64_t p = begin; p < end; ++p) {
    const int64_t n = p / q.out_pixels, o = p % q.out_pixels;
    const float* at = static_cast<const float*>(args[1]) + p * q.axes;
    AxisTaps t[3];
    for (int a = 0; a < 3; ++a) {
      t[a] = {1, {0}, {1.f}};
      if (a >= 3 - q.axes) t[a] = Axis(q, q.in[a]).taps(at[2 - a]);
    }
    int64_t index[64];
    float weight[64];
    int count = 0;
    for (int d = 0; d < t[0].count; ++d)
      for (int h = 0; h < t[1].count; ++h)
        for (int w = 0; w < t[2].count; ++w) {
          if (t[0].index[d] < 0 || t[1].index[h] < 0 || t[2].index[w] < 0) continue;
          index[count] = (t[0].index[d] * q.in[1] + t[1].index[h]) * q.in[2] + t[2].index[w];
          weight[count++] = t[0].weight[d] * t[1].weight[h] * t[2].weight[w];
        }
    for (int64_t c = 0; c < q.channels; ++c) {
      const float* x = static_cast<const float*>(args[0]) + (n * q.channels + c) * plane;
      float sum = 0;
      for (int k = 0; k < count; ++k) sum += x[index[k]] * weight[k];
      static_cast<float*>(args[2])[(n * q.channels + c) * q.out_pixels + o] = sum;
    }
  }
  return Status::ok;
}

Status affine_grid_step(const void* params, void* const* args, int part, int parts) {
  const auto& q = *static_cast<const AffineGrid*>(params);
  const int64_t pixels = q.size[0] * q.size[1] * q.size[2];
  const auto [begin, end] = part_of(q.batch * pixels, part, parts);
  const auto coordinate = [&](int axis, int64_t i) {
    const auto n = static_cast<double>(q.size[axis]), k = static_cast<double>(i);
    if (q.align_corners) return n > 1 ? 2 * k / (n - 1) - 1 : 0;
    return (2 * k + 1) / n - 1;
  };
  for (int64_t p = begin; p < end; ++p) {
    const int64_t o = p % pixels;
    const double xyz[3] = {coordinate(2, o % q.size[2]), coordinate(1, o / q.size[2] % q.size[1]),
                           coordinate(0, o / q.size[2] / q.size[1])};
    const float* theta = static_cast<const float*>(args[0]) + p / pixels * q.axes * (q.axes + 1);
    for (int i = 0; i < q.axes; ++i) {
      double sum = theta[i * (q.axes + 1) + q.axes];
      for (int j = 0; j < q.axes; ++j) sum += theta[i * (q.axes + 1) + j] * xyz[j];
      static_cast<float*>(args[1])[p * q.axes + i] = static_cast<float>(sum);
    }
  }
  return Status::ok;
}

}  // namespace fi
