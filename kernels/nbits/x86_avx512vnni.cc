// SPDX-License-Identifier: Apache-2.0
#include "kernels/nbits/generic_s8.h"
