// SPDX-License-Identifier: Apache-2.0
#include "kernels/depthwise/generic.h"

namespace fi::FI_ISA {

void depthwise_f32_row(const DepthwiseStep& q, const DepthwiseRow& d) { depthwise_row(q, d); }

}  // namespace fi::FI_ISA
