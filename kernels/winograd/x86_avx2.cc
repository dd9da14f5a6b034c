// SPDX-License-Identifier: Apache-2.0
#include "kernels/winograd/generic.h"
#include "kernels/winograd/generic_bf16.h"

namespace fi::FI_ISA {

#define FI_WINOGRAD(m)                                                                                \
  void winograd_input_##m(const float* const* pixels, int64_t channels, float* v, int64_t plane) {    \
    winograd_input<m>(pixels, channels, v, plane);                                                    \
  }                                                                                                   \
  void winograd_output_##m(const float* products, int64_t plane, int64_t channels, const float* bias, \
                           const Epilogue& e, float* const* rows, const float* const* residual) {     \
    winograd_output<m>(products, plane, channels, bias, e, rows, residual);                           \
  }
FI_WINOGRAD(4)
FI_WINOGRAD(6)

}  // namespace fi::FI_ISA

FI_WINOGRAD_BF16_VARIANT
