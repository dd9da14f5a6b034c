// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention/generic.h"
#include "kernels/attention/rotary_generic.h"
