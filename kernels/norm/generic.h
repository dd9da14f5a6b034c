// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "kernels/norm/norm.h"
#include "kernels/reduce/fold.h"

namespace fi::FI_ISA {

FI_INLINE float reciprocal_root(double v) {
  float lanes[VF::W];
  store(lanes, set1(1.f) / sqrt(set1(static_cast<float>(v))));
  return lanes[0];
}

// mean is the rounded mean and delta what it lacks: x − mean − delta is centred.
struct Moments {
  float mean, delta, rstd;
};
FI_INLINE Moments finish_moments(float mean, double sum, double square, int64_t n, float epsilon) {
  const double count = static_cast<double>(n), delta = sum / count, variance = square / count - delta * delta;
  return {mean, static_cast<float>(delta),
          reciprocal_root((variance > 0           ? variance
                           : variance != variance ? variance
                                                  : 0) +
                          epsilon)};
}
FI_INLINE float mean_of(const float* x, int64_t n) { return static_cast<float>(sum_of(x, n) / static_cast<double>(n)); }
FI_INLINE Moments moments_around(const float* x, int64_t n, float mean, float epsilon) {
  const VF m = set1(mean);
  const double sum = sum_of(x, n, [m](VF a) FI_FORCED_LAMBDA { return a - m; });
  const double square = sum_of(x, n, [m](VF a) FI_FORCED_LAMBDA { return (a - m) * (a - m); });
  return finish_moments(mean, sum, square, n, epsilon);
}
static Moments moments_of(const float* x, int64_t n, float epsilon) {
  return moments_around(x, n, mean_of(x, n), epsilon);
}

// f(vector at i, lanes) for each vector of a row.
template <class F>
FI_INLINE void for_row(int64_t n, F f) {
  int64_t i = 0;
  for (; i + VF::W <= n; i += VF::W) f(i, VF::W);
  if (i < n) f(i, static_cast<int>(n - i));
}

struct RowNormArgs {
  const float *x, *r, *xbias, *scale, *bias;
  float *y, *sum, *mean, *rstd;
};

// s = x + r + xbias, kept in the sum output if wanted, else where y will be.
static const float* add_residual(const RowNormParams& p, const RowNormArgs& a, int64_t row) {
  const float* x = a.x + row * p.n;
  if (!a.r && !a.xbias) {
    if (a.sum) std::memcpy(a.sum + row * p.n, x, static_cast<size_t>(p.n) * 4);
    return x;
  }
  float* s = (a.sum ? a.sum : a.y) + row * p.n;
  const float* r = a.r ? a.r + row % p.r_rows * p.n : nullptr;
  for_row(p.n, [&](int64_t i, int lanes) FI_FORCED_LAMBDA {
    VF v = load(x + i, lanes);
    if (r) v = v + load(r + i, lanes);
    if (a.xbias) v = v + load(a.xbias + i, lanes);
    store(s + i, v, lanes);
  });
  return s;
}

static void normalise_row(const RowNormParams& p, const RowNormArgs& a, const float* s, float* y, Moments m) {
  const VF mean = set1(m.mean), delta = set1(m.delta), rstd = set1(m.rstd), one = set1(1.f);
  const VF scale = a.scale && p.scalar_scale ? set1(*a.scale) : one;
  const VF bias = a.bias && p.scalar_bias ? set1(*a.bias) : zero();
  const bool scale_row = a.scale && !p.scalar_scale, bias_row = a.bias && !p.scalar_bias;
  for_row(p.n, [&](int64_t i, int lanes) FI_FORCED_LAMBDA {
    const VF v = load(s + i, lanes), c = p.rms ? v : (v - mean) - delta;
    const VF g = scale_row ? load(a.scale + i, lanes) : scale, b = bias_row ? load(a.bias + i, lanes) : bias;
    store(y + i, fma(c * rstd, g, b), lanes);
  });
}

constexpr int kRowsTogether = 4;

static void norm_rows(const RowNormParams& p, const RowNormArgs& a, int64_t row, int count) {
  const float* s[kRowsTogether];
  Moments m[kRowsTogether] = {};
  for (int i = 0; i < count; ++i) s[i] = add_residual(p, a, row + i);
  if (p.rms) {
    for (int i = 0; i < count; ++i) {
      const double square = sum_of(s[i], p.n, [](VF v) FI_FORCED_LAMBDA { return v * v; });
      m[i].rstd = reciprocal_root(square / static_cast<double>(p.n) + p.epsilon);
    }
  } else {
    for (int i = 0; i < count; ++i) m[i].mean = mean_of(s[i], p.n);
    for (int i = 0; i < count; ++i) m[i] = moments_around(s[i], p.n, m[i].mean, p.epsilon);
  }
  for (int i = 0; i < count; ++i) {
    normalise_row(p, a, s[i], a.y + (row + i) * p.n, m[i]);
    if (a.mean) a.mean[row + i] = m[i].mean + m[i].delta;
    if (a.rstd) a.rstd[row + i] = m[i].rstd;
  }
}

Status run_row_norm(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const RowNormParams*>(params);
  const auto in = [&](int i) { return static_cast<const float*>(args[i]); };
  const auto out = [&](int i) { return static_cast<float*>(args[i]); };
  const RowNormArgs a{in(0), in(1), in(2), in(3), in(4), out(5), out(6), out(7), out(8)};
  const Range r = part_of(p.rows, part, parts);
  // Short rows are a chain of latencies (three folds, two divisions, a root): four of them side by side.
  const int64_t together = p.n <= 1024 ? kRowsTogether : 1;
  for (int64_t row = r.begin; row < r.end; row += together)
    norm_rows(p, a, row, r.end - row < together ? static_cast<int>(r.end - row) : static_cast<int>(together));
  return Status::ok;
}

Status run_group_norm(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const GroupNormParams*>(params);
  const auto* scale = static_cast<const float*>(args[1]);
  const auto* bias = static_cast<const float*>(args[2]);
  const int64_t size = p.n * p.inner;
  const Range r = part_of(p.batch * p.groups, part, parts);
  for (int64_t u = r.begin; u < r.end; ++u) {
    const float* x = static_cast<const float*>(args[0]) + u * size;
    float* y = static_cast<float*>(args[3]) + u * size;
    const Moments m = moments_of(x, size, p.epsilon);
    const VF mean = set1(m.mean), delta = set1(m.delta), rstd = set1(m.rstd);
    for (int64_t c = 0; c < p.n; ++c) {
      const int64_t channel = u % p.groups * p.n + c, at = c * p.inner;
      const VF g = set1(scale ? scale[channel] : 1), b = set1(bias ? bias[channel] : 0);
      for_row(p.inner, [&](int64_t i, int lanes) FI_FORCED_LAMBDA {
        store(y + at + i, fma(((load(x + at + i, lanes) - mean) - delta) * rstd, g, b), lanes);
      });
    }
  }
  return Status::ok;
}

// Groups [group, group + count): sums per channel, a vector of channels at a time, joined per group.
static void last_group_unit(const LastGroupNormParams& p, const float* x, float* y, const float* scale,
                            const float* bias, int64_t group, int64_t count) {
  const int64_t channels = p.groups * p.n, first = group * p.n, width = count * p.n;
  const double elements = static_cast<double>(p.n) * static_cast<double>(p.space);
  double sum[16] = {}, offset[16] = {}, square[16] = {};
  float mean[16];
  const auto per_channel = [&](auto&& reduce, double* total) FI_FORCED_LAMBDA {
    for_row(width, [&](int64_t i, int lanes) FI_FORCED_LAMBDA {
      float at[VF::W], means[VF::W];
      for (int k = 0; k < lanes; ++k) means[k] = mean[(i + k) / p.n];
      store(at, reduce(x + first + i, lanes, load(means, lanes)));
      for (int k = 0; k < lanes; ++k) total[(i + k) / p.n] += at[k];
    });
  };
  for (int64_t g = 0; g < count; ++g) mean[g] = 0;
  per_channel(
      [&](const float* at, int lanes, VF) FI_FORCED_LAMBDA {
        return sum_column(at, p.space, channels, lanes, [](VF a) FI_FORCED_LAMBDA { return a; });
      },
      sum);
  for (int64_t g = 0; g < count; ++g) mean[g] = static_cast<float>(sum[g] / elements);
  per_channel(
      [&](const float* at, int lanes, VF m) FI_FORCED_LAMBDA {
        return sum_column(at, p.space, channels, lanes, [m](VF a) FI_FORCED_LAMBDA { return a - m; });
      },
      offset);
  per_channel(
      [&](const float* at, int lanes, VF m) FI_FORCED_LAMBDA {
        return sum_column(at, p.space, channels, lanes, [m](VF a) FI_FORCED_LAMBDA { return (a - m) * (a - m); });
      },
      square);
  Moments m[16];
  for (int64_t g = 0; g < count; ++g) m[g] = finish_moments(mean[g], offset[g], square[g], p.n * p.space, p.epsilon);
  for_row(width, [&](int64_t i, int lanes) FI_FORCED_LAMBDA {
    float centre[VF::W], rest[VF::W], gain[VF::W];
    for (int k = 0; k < lanes; ++k) {
      const Moments& of = m[(i + k) / p.n];
      centre[k] = of.mean;
      rest[k] = of.delta;
      gain[k] = of.rstd;
    }
    const VF mv = load(centre, lanes), dv = load(rest, lanes), rv = load(gain, lanes);
    const VF g = scale ? load(scale + first + i, lanes) : set1(1.f);
    const VF b = bias ? load(bias + first + i, lanes) : zero();
    for (int64_t s = 0; s < p.space; ++s) {
      const int64_t at = s * channels + first + i;
      store(y + at, fma(((load(x + at, lanes) - mv) - dv) * rv, g, b), lanes);
    }
  });
}

Status run_last_group_norm(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const LastGroupNormParams*>(params);
  const auto* x = static_cast<const float*>(args[0]);
  auto* y = static_cast<float*>(args[3]);
  const int64_t together = groups_per_unit(p), per_sample = (p.groups + together - 1) / together;
  const Range r = part_of(units_of(p), part, parts);
  for (int64_t u = r.begin; u < r.end; ++u) {
    const int64_t sample = u / per_sample * p.space * p.groups * p.n, group = u % per_sample * together;
    const int64_t count = p.groups - group < together ? p.groups - group : together;
    last_group_unit(p, x + sample, y + sample, static_cast<const float*>(args[1]), static_cast<const float*>(args[2]),
                    group, count);
  }
  return Status::ok;
}

}  // namespace fi::FI_ISA
