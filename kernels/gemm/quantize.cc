// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm/quantize.h"

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

#define FI_KERNEL(isa)                                               \
  namespace isa {                                                    \
  Status range_step(const void*, void* const*, int, int);            \
  Status dynamic_quantize_step(const void*, void* const*, int, int); \
  }
#include "kernels/gemm/kernels_quantize.inc"
#undef FI_KERNEL

const DynamicQuantizeKernel& dynamic_quantize(Isa isa) {
  static const DynamicQuantizeKernel rows[] = {
#define FI_KERNEL(isa) {Isa::isa, &isa::range_step, &isa::dynamic_quantize_step},
#include "kernels/gemm/kernels_quantize.inc"
#undef FI_KERNEL
  };
  const DynamicQuantizeKernel* row = rows;
  while (row->isa > isa) ++row;
  return *row;
}

}  // namespace fi
