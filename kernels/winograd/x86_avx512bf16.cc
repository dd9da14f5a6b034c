// SPDX-License-Identifier: Apache-2.0
#include "kernels/winograd/generic_bf16.h"

FI_WINOGRAD_BF16_VARIANT
