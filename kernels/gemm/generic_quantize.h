// SPDX-License-Identifier: Apache-2.0
// Quantisation at run time, contract: kernels/gemm/quantize.h.
#pragma once
#include "kernels/gemm/bytes.h"
#include "kernels/gemm/quantize.h"

namespace fi::FI_ISA {

Status range_step(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const RangeStep*>(params);
  const auto [begin, end] = part_of(p.elements, part, parts);
  const float* x = static_cast<const float*>(args[0]);
  constexpr int kVectors = 4;  // independent, for the latency of min and max
  VF lo[kVectors], hi[kVectors];
  for (int j = 0; j < kVectors; ++j) lo[j] = hi[j] = zero();
  int64_t i = begin;
  for (; i + kVectors * VF::W <= end; i += kVectors * VF::W)
    for (int j = 0; j < kVectors; ++j) {
      const VF v = load(x + i + j * VF::W);
      lo[j] = min(v, lo[j]);  // the second operand if v is NaN
      hi[j] = max(v, hi[j]);
    }
  for (; i < end; i += VF::W) {
    const VF v = load(x + i, static_cast<int>(end - i < VF::W ? end - i : VF::W));
    lo[0] = min(v, lo[0]);
    hi[0] = max(v, hi[0]);
  }
  for (int j = 1; j < kVectors; ++j) {
    lo[0] = min(lo[j], lo[0]);
    hi[0] = max(hi[j], hi[0]);
  }
  float* out = static_cast<float*>(args[1]) + 2 * part;
  out[0] = reduce_min(lo[0]);
  out[1] = reduce_max(hi[0]);
  return Status::ok;
}

Status dynamic_quantize_step(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const DynamicQuantizeStep*>(params);
  const float* ranges = static_cast<const float*>(args[1]);
  float lo = 0, hi = 0;
  for (int i = 0; i < p.ranges; ++i) {
    lo = ranges[2 * i] < lo ? ranges[2 * i] : lo;
    hi = ranges[2 * i + 1] > hi ? ranges[2 * i + 1] : hi;
  }
  const float scale = (hi == lo ? 1.f : hi - lo) / 255.f;
  uint8_t zero_point[VI::W];
  store_low_bytes(zero_point, ByteRange(0, 0, 255).around_zero(set1(-lo / scale)), VI::W);
  if (part == 0) {
    *static_cast<float*>(args[3]) = scale;
    *static_cast<uint8_t*>(args[4]) = zero_point[0];
  }
  const ByteRange range(zero_point[0], 0, 255);
  const auto [begin, end] = part_of(p.elements, part, parts, 64);
  const float* x = static_cast<const float*>(args[0]);
  uint8_t* y = static_cast<uint8_t*>(args[2]);
  const VF by = set1(scale);
  int64_t i = begin;
  for (; i + VF::W <= end; i += VF::W) store_low_bytes(y + i, range.around_zero(load(x + i) / by) + range.zero, VF::W);
  if (i < end) {
    const int n = static_cast<int>(end - i);
    store_low_bytes(y + i, range.around_zero(load(x + i, n) / by) + range.zero, n);
  }
  return Status::ok;
}

}  // namespace fi::FI_ISA
