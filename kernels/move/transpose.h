// SPDX-License-Identifier: Apache-2.0
// Transposes as strided copies: y[i_perm(0), ..., i_perm(r-1)] = x[i_0, ..., i_r-1]; see strided_copy.h for running
// them.
#pragma once
#include <span>

#include "csrc/base/cpu.h"
#include "csrc/base/shape.h"
#include "kernels/move/strided_copy.h"

namespace fi {

// Thrown by StridedCopy::axis; it stands here because strided_copy.h is compiled per instruction set.
struct CopyTooDeep : Error {
  using Error::Error;
};

// perm as in ONNX: output axis k is input axis perm[k]; a permutation of 0..rank-1.
StridedCopy transpose_copy(const Shape& in, std::span<const int> perm, int64_t unit);
// [batch, rows, cols] → [batch, cols, rows]. NCHW → NHWC is (N, C, H·W), back is (N, H·W, C).
StridedCopy transpose_copy(int64_t batch, int64_t rows, int64_t cols, int64_t unit);

}  // namespace fi
