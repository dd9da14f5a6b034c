// SPDX-License-Identifier: Apache-2.0
#include "kernels/depthwise/generic.h"
#include "kernels/depthwise/generic_bytes.h"
#include "kernels/depthwise/generic_u8s8.h"

namespace fi::FI_ISA {

FI_DEPTHWISE(3, 1, 4)
FI_DEPTHWISE(3, 2, 4)
FI_DEPTHWISE(5, 1, 4)
FI_DEPTHWISE(5, 2, 4)
FI_DEPTHWISE(7, 1, 4)
FI_DEPTHWISE_ANY
FI_DEPTHWISE_BF16_ANY

}  // namespace fi::FI_ISA
