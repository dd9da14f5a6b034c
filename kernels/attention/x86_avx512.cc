// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention/generic.h"
#include "kernels/attention/generic_bf16.h"
#include "kernels/attention/rotary_generic.h"

FI_ATTENTION_BF16_VARIANT(WidenedPairs)
