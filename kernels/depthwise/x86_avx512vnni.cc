// SPDX-License-Identifier: Apache-2.0
#include "kernels/depthwise/generic_u8s8.h"
