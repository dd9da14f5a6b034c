// SPDX-License-Identifier: Apache-2.0
// One output row at a time: input rows are blended into a row that stays in cache, its pixels into the output row.
#pragma once
#include "kernels/resize/resize.h"
#include "kernels/simd/simd.h"

#define FI_UNROLL _Pragma("GCC unroll 8")

namespace fi::FI_ISA {

FI_INLINE VF resize_load(const float* p, int64_t n) { return n >= VF::W ? load(p) : load(p, static_cast<int>(n)); }
FI_INLINE void resize_store(float* p, VF v, int64_t n) {
  if (n >= VF::W)
    store(p, v);
  else
    store(p, v, static_cast<int>(n));
}

// y[i] = sum over k of w[k] * x[index[k] * stride + i], i < n. T: the number of taps, 0: `taps`.
template <int T>
FI_INLINE void resize_blend(const float* x, int64_t stride, const int32_t* index, const float* w, int64_t taps,
                            float* y, int64_t n) {
  const int64_t count = T ? T : taps;
  for (int64_t i = 0; i < n; i += VF::W) {
    VF acc = resize_load(x + index[0] * stride + i, n - i) * set1(w[0]);
    FI_UNROLL for (int64_t k = 1; k < count; ++k) acc =
        fma(resize_load(x + index[k] * stride + i, n - i), set1(w[k]), acc);
    resize_store(y + i, acc, n - i);
  }
}
FI_INLINE void resize_blend_any(const float* x, int64_t stride, const int32_t* index, const float* w, int64_t taps,
                                float* y, int64_t n) {
  if (taps == 2)
    resize_blend<2>(x, stride, index, w, taps, y, n);
  else if (taps == 4)
    resize_blend<4>(x, stride, index, w, taps, y, n);
  else
    resize_blend<0>(x, stride, index, w, taps, y, n);
}

FI_INLINE void resize_fill(float* y, float value, int64_t n) {
  for (int64_t i = 0; i < n; i += VF::W) resize_store(y + i, set1(value), n - i);
}

// The pixels of an output row out of one blended input row.
FI_INLINE void resize_columns(const ResizeRows& q, const ResizeTable& b, const float* x, float* y) {
  if (q.inner >= 4) {
    for (int64_t j = 0; j < q.b_out; ++j)
      resize_blend_any(x, q.inner, b.index + j * q.b_taps, b.weight + j * q.b_taps, q.b_taps, y + j * q.inner, q.inner);
  } else {
    for (int64_t j = 0; j < q.b_out; ++j)
      for (int64_t c = 0; c < q.inner; ++c) {
        const int32_t* index = b.index + j * q.b_taps;
        const float* w = b.weight + j * q.b_taps;
        float acc = x[index[0] * q.inner + c] * w[0];
        for (int64_t k = 1; k < q.b_taps; ++k) acc += x[index[k] * q.inner + c] * w[k];
        y[j * q.inner + c] = acc;
      }
  }
  for (int64_t j = 0; j < q.b_out; ++j)
    if (b.outside[j]) resize_fill(y + j * q.inner, q.extrapolation, q.inner);
}

Status resize_f32(const void* params, void* const* args, int part, int parts) {
  const auto& q = *static_cast<const ResizeRows*>(params);
  const auto* x = static_cast<const float*>(args[0]);
  auto* y = static_cast<float*>(args[3]);
  const ResizeTable a = resize_table(args[1], q.a_out, q.a_taps), b = resize_table(args[2], q.b_out, q.b_taps);
  const int64_t in_row = q.b_in * q.inner, out_row = q.b_out * q.inner;
  float* buffer = static_cast<float*>(args[4]) + part * ((in_row + 31) / 16 * 16);
  const auto [begin, end] = part_of(q.outer * q.a_out, part, parts);
  for (int64_t row = begin; row < end; ++row) {
    const int64_t i = row % q.a_out;
    const float* image = x + row / q.a_out * q.a_in * in_row;
    float* out = y + row * out_row;
    if (q.a_taps && a.outside[i]) {
      resize_fill(out, q.extrapolation, out_row);
      continue;
    }
    const float* line = image + i * in_row;
    if (q.a_taps) {
      float* blended = q.b_taps ? buffer : out;
      resize_blend_any(image, in_row, a.index + i * q.a_taps, a.weight + i * q.a_taps, q.a_taps, blended, in_row);
      line = blended;
    }
    if (q.b_taps) resize_columns(q, b, line, out);
  }
  return Status::ok;
}

}  // namespace fi::FI_ISA
