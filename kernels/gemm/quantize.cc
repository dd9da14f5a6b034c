// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm/quantize.h"

#include <algorithm>
#include <cmath>

namespace fi {
namespace {

int32_t zero_at(const void* p, int64_t i, bool is_signed) {
  if (!p) return 0;
  return is_signed ? static_cast<const int8_t*>(p)[i] : static_cast<const uint8_t*>(p)[i];
}

float scale_at(const void* p, int64_t i) { return p ? static_cast<const float*>(p)[i] : 1.f; }

}  // namespace

Status quantization_step(const void* params, void* const* args, int, int) {
  const auto& p = *static_cast<const QuantizationStep*>(params);
  auto *za = static_cast<int32_t*>(args[5]), *zb = static_cast<int32_t*>(args[6]);
  auto *row_scale = static_cast<float*>(args[7]), *column_scale = static_cast<float*>(args[8]);
  for (int64_t i = 0; i < p.rows; ++i) {
    za[i] = zero_at(args[0], p.a_zero_by_row ? i : 0, p.signed_a) + (p.signed_a ? 128 : 0);
    row_scale[i] = p.a_scale_by_row ? scale_at(args[2], i) : 1.f;
  }
  const float a_scale = p.a_scale_by_row ? 1.f : scale_at(args[2], 0);
  const float y_scale = scale_at(args[4], 0);
  for (int64_t n = 0; n < p.n; ++n) {
    zb[n] = zero_at(args[1], p.b_zero_by_column ? n : 0, p.signed_b) - (p.signed_b ? 0 : 128);
    column_scale[n] = a_scale * scale_at(args[3], p.b_scale_by_column ? n : 0) / y_scale * p.factor;
  }
  return Status::ok;
}

Status range_step(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const RangeStep*>(params);
  const auto [begin, end] = part_of(p.elements, part, parts);
  const float* x = static_cast<const float*>(args[0]);
  constexpr int kLanes = 16;  // independent lanes, so that the loop becomes minps and maxps
  float lo[kLanes] = {}, hi[kLanes] = {};
  int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes)
    for (int j = 0; j < kLanes; ++j) {
      lo[j] = x[i + j] < lo[j] ? x[i + j] : lo[j];
      hi[j] = x[i + j] > hi[j] ? x[i + j] : hi[j];
    }
  for (; i < end; ++i) {
    lo[0] = std::min(lo[0], x[i]);
    hi[0] = std::max(hi[0], x[i]);
  }
  float* out = static_cast<float*>(args[1]) + 2 * part;
  out[0] = *std::min_element(lo, lo + kLanes);
  out[1] = *std::max_element(hi, hi + kLanes);
  return Status::ok;
}

Status dynamic_quantize_step(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const DynamicQuantizeStep*>(params);
  const float* ranges = static_cast<const float*>(args[1]);
  float lo = 0, hi = 0;
  for (int i = 0; i < p.ranges; ++i) {
    lo = std::min(lo, ranges[2 * i]);
    hi = std::max(hi, ranges[2 * i + 1]);
  }
  const float scale = hi == lo ? 1.f : (hi - lo) / 255.f;
  const float zero = std::nearbyint(std::clamp(-lo / scale, 0.f, 255.f));
  if (part == 0) {
    *static_cast<float*>(args[3]) = scale;
    *static_cast<uint8_t*>(args[4]) = static_cast<uint8_t>(zero);
  }
  const auto [begin, end] = part_of(p.elements, part, parts, 64);
  const float* x = static_cast<const float*>(args[0]);
  uint8_t* y = static_cast<uint8_t*>(args[2]);
  for (int64_t i = begin; i < end; ++i) {
    // Adding and taking off 1.5 * 2^23 rounds half to even, after the clamp that keeps it exact. NaN becomes 0.
    const float q = x[i] / scale;
    const float bounded = q > -512.f ? (q < 512.f ? q : 512.f) : -512.f;
    const float rounded = (bounded + 12582912.f) - 12582912.f + zero;
    y[i] = static_cast<uint8_t>(static_cast<int32_t>(rounded > 0.f ? (rounded < 255.f ? rounded : 255.f) : 0.f));
  }
  return Status::ok;
}

}  // namespace fi
