// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm/plain.h"

namespace fi {
namespace {

template <class T>
void plain_row(const PlainMatMul& p, const T* a, const T* b, const T* c, T* y) {
  for (int64_t n = 0; n < p.n; ++n) y[n] = 0;
  for (int64_t k = 0; k < p.k; ++k) {
    const T x = a[k * p.a_k];
    const T* row = b + k * p.b_k;
    if (p.b_n == 1)
      for (int64_t n = 0; n < p.n; ++n) y[n] += x * row[n];
    else
      for (int64_t n = 0; n < p.n; ++n) y[n] += x * row[n * p.b_n];
  }
  for (int64_t n = 0; c && n < p.n; ++n) y[n] += c[n * p.c_n];
}

// T is unsigned: the wrap-around is the same and defined.
template <class T>
Status plain_step(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const PlainMatMul*>(params);
  int64_t batches = 1;
  for (int d = 0; d < p.batch_rank; ++d) batches *= p.batch[d];
  const Range range = part_of(batches * p.m, part, parts);
  for (int64_t r = range.begin; r < range.end; ++r) {
    const T *a = static_cast<const T*>(args[0]) + r % p.m * p.a_m, *b = static_cast<const T*>(args[1]);
    int64_t index = r / p.m;
    for (int d = p.batch_rank - 1; d >= 0; index /= p.batch[d--]) {
      a += index % p.batch[d] * p.a_batch[d];
      b += index % p.batch[d] * p.b_batch[d];
    }
    const T* c = static_cast<const T*>(args[2]);
    plain_row(p, a, b, c ? c + r % p.m * p.c_m : nullptr, static_cast<T*>(args[3]) + r * p.n);
  }
  return Status::ok;
}

}  // namespace

StepFn plain_matmul_step(DType t) {
  switch (t) {
    case DType::s32:
    case DType::u32:
      return plain_step<uint32_t>;
    case DType::s64:
    case DType::u64:
      return plain_step<uint64_t>;
    default:
      return nullptr;
  }
}

Status broadcast_addend_step(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const BroadcastAddend*>(params);
  const Range rows = part_of(p.m, part, parts);
  for (int64_t m = rows.begin; m < rows.end; ++m) {
    const float* c = static_cast<const float*>(args[0]) + m * p.c_m;
    float* y = static_cast<float*>(args[1]) + m * p.n;
    for (int64_t n = 0; n < p.n; ++n) y[n] = p.beta * c[n * p.c_n];
  }
  return Status::ok;
}

}  // namespace fi
