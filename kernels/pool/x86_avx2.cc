// SPDX-License-Identifier: Apache-2.0
#include "kernels/pool/generic.h"
