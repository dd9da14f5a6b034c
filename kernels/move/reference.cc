// SPDX-License-Identifier: Apache-2.0
namespace fi::FI_ISA {
constexpr int kWidest = 16;
}
#include "kernels/move/generic.h"
#include "kernels/move/transpose_generic.h"
