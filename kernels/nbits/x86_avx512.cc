// SPDX-License-Identifier: Apache-2.0
#include "kernels/nbits/generic_f32.h"
#include "kernels/nbits/generic_s8.h"
