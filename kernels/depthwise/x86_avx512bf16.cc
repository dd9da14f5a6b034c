// SPDX-License-Identifier: Apache-2.0
#include "kernels/depthwise/generic.h"

namespace fi::FI_ISA {

FI_DEPTHWISE_BF16(3, 1, 7)
FI_DEPTHWISE_BF16(3, 2, 7)
FI_DEPTHWISE_BF16(5, 1, 7)
FI_DEPTHWISE_BF16(5, 2, 4)
FI_DEPTHWISE_BF16(7, 1, 7)
FI_DEPTHWISE_BF16_ANY

}  // namespace fi::FI_ISA
