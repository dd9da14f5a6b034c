// SPDX-License-Identifier: Apache-2.0
// Constant matrices in the f32 microkernel's layout.
#pragma once
#include "csrc/ops/op.h"
#include "kernels/gemm/gemm.h"

namespace fi {

// B: [batch..., k, n] (or [batch..., n, k] if transposed; a vector is [k, 1]). Matrices are packed one after the other.
Packing gemm_packing(const GemmF32&, const Shape& b, bool transposed);

}  // namespace fi
