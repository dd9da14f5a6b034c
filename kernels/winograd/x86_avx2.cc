// SPDX-License-Identifier: Apache-2.0
#include "kernels/winograd/generic.h"
#include "kernels/winograd/generic_bf16.h"

namespace fi::FI_ISA {

void winograd_input_4(const float* const* pixels, int64_t channels, float* v, int64_t plane) {
  winograd_input<4>(pixels, channels, v, plane);
}
void winograd_output_4(const float* products, int64_t plane, int64_t channels, const float* bias, const Epilogue& e,
                       float* const* rows, const float* const* residual) {
  winograd_output<4>(products, plane, channels, bias, e, rows, residual);
}

}  // namespace fi::FI_ISA

FI_WINOGRAD_BF16_VARIANT
