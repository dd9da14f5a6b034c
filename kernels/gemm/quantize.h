// SPDX-License-Identifier: Apache-2.0
// What surrounds an integer matrix product: its scales and zero points in the microkernel's form, and the quantisation
// of a float A at run time.
#pragma once
#include <cstddef>
#include <cstdint>

#include "csrc/base/cpu.h"
#include "csrc/base/step.h"
#include "kernels/gemm/gemm_u8s8.h"

namespace fi {

// args: a_zero, b_zero (bytes, or null: 0), a_scale, b_scale, y_scale (floats, or null: 1) →
//       za s32 [rows], zb s32 [n], row_scale [rows], column_scale [n].
// row_scale is 1 if there is one a_scale, which then is a factor of column_scale = a_scale * b_scale / y_scale *
// factor.
struct QuantizationStep {
  int64_t rows = 1, n = 0;
  bool signed_a = false, signed_b = false;
  bool a_zero_by_row = false, b_zero_by_column = false, a_scale_by_row = false, b_scale_by_column = false;
  float factor = 1;
};
Status quantization_step(const void* params, void* const* args, int part, int parts);

// Smallest and largest of 0 and the elements (NaN counts as neither): args: X, float [2 * parts].
struct RangeStep {
  int64_t elements = 0;
};
// DynamicQuantizeLinear with the ranges that `ranges` parts of the range step found: args: X, ranges, Y u8, scale, zero
// u8. NaN becomes 0.
struct DynamicQuantizeStep {
  int64_t elements = 0;
  int ranges = 0;
};
struct DynamicQuantizeKernel {
  Isa isa;
  StepFn range, quantize;
};
const DynamicQuantizeKernel& dynamic_quantize(Isa);

}  // namespace fi
