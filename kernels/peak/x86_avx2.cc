// SPDX-License-Identifier: Apache-2.0
#include "kernels/peak/generic.h"

FI_PEAK_VARIANT(peak_f32x8)
