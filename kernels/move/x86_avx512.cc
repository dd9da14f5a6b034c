// SPDX-License-Identifier: Apache-2.0
#include "kernels/move/x86_wide.h"

namespace fi::FI_ISA {
constexpr int kWidest = 64;
}
#include "kernels/move/generic.h"
#include "kernels/move/transpose_generic.h"
