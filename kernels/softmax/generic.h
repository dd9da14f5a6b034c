// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "kernels/reduce/fold.h"
#include "kernels/softmax/softmax.h"

namespace fi::FI_ISA {

// y[i] = f(x[i])
template <class F>
FI_INLINE void map_row(const float* x, float* y, int64_t n, F f) {
  int64_t i = 0;
  for (; i + VF::W <= n; i += VF::W) store(y + i, f(load(x + i)));
  if (const int left = static_cast<int>(n - i); left > 0) store(y + i, f(load(x + i, left)), left);
}

static void softmax_row(const float* x, float* y, int64_t n) {
  const VF m = set1(max_of(x, n));
  map_row(x, y, n, [m](VF a) FI_FORCED_LAMBDA { return exp(a - m); });
  const VF scale = set1(static_cast<float>(1 / sum_of(y, n)));
  map_row(y, y, n, [scale](VF a) FI_FORCED_LAMBDA { return a * scale; });
}

static void log_softmax_row(const float* x, float* y, int64_t n) {
  const VF m = set1(max_of(x, n));
  const VF sum = set1(static_cast<float>(sum_of(x, n, [m](VF a) FI_FORCED_LAMBDA { return exp(a - m); })));
  const VF shift = log(sum);
  map_row(x, y, n, [m, shift](VF a) FI_FORCED_LAMBDA { return a - m - shift; });
}

static void softmax_columns(const float* x, float* y, int64_t n, int64_t stride, int left, bool as_log) {
  VF m = neg(infinity());
  for (int64_t k = 0; k < n; ++k) m = max(m, load(x + k * stride, left));
  if (as_log) {
    const VF shift = log(sum_column(x, n, stride, left, [m](VF a) FI_FORCED_LAMBDA { return exp(a - m); }));
    for (int64_t k = 0; k < n; ++k) store(y + k * stride, load(x + k * stride, left) - m - shift, left);
    return;
  }
  for (int64_t k = 0; k < n; ++k) store(y + k * stride, exp(load(x + k * stride, left) - m), left);
  const VF scale = set1(1.f) / sum_column(y, n, stride, left, [](VF a) FI_FORCED_LAMBDA { return a; });
  for (int64_t k = 0; k < n; ++k) store(y + k * stride, load(y + k * stride, left) * scale, left);
}

Status run_softmax(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const SoftmaxParams*>(params);
  const auto* x = static_cast<const float*>(args[0]);
  auto* y = static_cast<float*>(args[1]);
  const Range r = part_of(softmax_units(p), part, parts);
  if (p.inner == 1) {
    for (int64_t o = r.begin; o < r.end; ++o)
      p.log ? log_softmax_row(x + o * p.n, y + o * p.n, p.n) : softmax_row(x + o * p.n, y + o * p.n, p.n);
    return Status::ok;
  }
  const int64_t blocks = (p.inner + kSoftmaxBlock - 1) / kSoftmaxBlock;
  for (int64_t u = r.begin; u < r.end; ++u) {
    const int64_t at = u / blocks * p.n * p.inner, first = u % blocks * kSoftmaxBlock;
    const int64_t last = first + kSoftmaxBlock < p.inner ? first + kSoftmaxBlock : p.inner;
    for (int64_t i = first; i < last; i += VF::W) {
      const int left = static_cast<int>(last - i < VF::W ? last - i : VF::W);
      softmax_columns(x + at + i, y + at + i, p.n, p.inner, left, p.log);
    }
  }
  return Status::ok;
}

}  // namespace fi::FI_ISA
