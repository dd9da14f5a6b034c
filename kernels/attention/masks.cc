// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention/masks.h"

namespace fi {
namespace {

bool hidden(const MaskStep& p, const int32_t* mask, int64_t b, int64_t i, int64_t j) {
  switch (p.form) {
    case KeyMask::none:
      return false;
    case KeyMask::ends:
      return j >= mask[b];
    case KeyMask::ends_and_starts:
      return j >= mask[b] || j < mask[p.samples + b];
    case KeyMask::per_key:
      return mask[b * p.keys + j] <= 0;
    default:
      return mask[(b * p.queries + i) * p.keys + j] <= 0;
  }
}

}  // namespace

Status attention_mask_step(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const MaskStep*>(params);
  const auto* mask = static_cast<const int32_t*>(args[0]);
  const auto* added = static_cast<const float*>(args[1]);
  auto* out = static_cast<float*>(args[2]);
  const Range rows = part_of(p.batch * p.heads * p.queries, part, parts);
  for (int64_t r = rows.begin; r < rows.end; ++r) {
    const int64_t i = r % p.queries, n = r / p.queries % p.heads, b = r / p.queries / p.heads;
    const float* plus = p.has_added ? added + b * p.added.b + n * p.added.h + i * p.added.s : nullptr;
    float* y = out + r * p.keys;
    for (int64_t j = 0; j < p.keys; ++j)
      y[j] = (hidden(p, mask, b, i, j) ? p.filter : 0.f) + (plus ? plus[j * p.added.e] : 0.f);
  }
  return Status::ok;
}

Status row_bias_step(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const RowBias*>(params);
  const auto* bias = static_cast<const float*>(args[1]);
  const Range rows = part_of(p.rows, part, parts);
  for (int64_t r = rows.begin; r < rows.end; ++r) {
    const float* x = static_cast<const float*>(args[0]) + r * p.row;
    float* y = static_cast<float*>(args[2]) + r * p.width;
    for (int64_t i = 0; i < p.width; ++i) y[i] = x[i] + bias[i];
  }
  return Status::ok;
}

}  // namespace fi
