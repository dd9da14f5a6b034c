// SPDX-License-Identifier: Apache-2.0
// Shapes of a numpy-style matrix product, shared by the float and the integer operators.
#pragma once
#include "csrc/ops/op.h"

namespace fi {

// Y[batch, m, n] = A[batch, m, k] * B[batch, k, n], batch axes broadcast.
struct MatMulShape {
  int64_t m = 1, n = 1, k = 1;
  Shape out;  // as numpy gives it: without m or n where an operand is a vector
  // Batch axes with extent 1 left out and neighbours merged; strides count matrices of A and of B.
  int batch_rank = 0;
  int64_t batch[kMaxRank] = {}, a_batch[kMaxRank] = {}, b_batch[kMaxRank] = {};
  int64_t batches() const;
};

// trans_a, trans_b: the last two axes (of an operand that is not a vector) are swapped first.
MatMulShape matmul_shape(const Shape& a, const Shape& b, bool trans_a = false, bool trans_b = false);

// If B is the same for the innermost batch axes and A's rows go on from one matrix to the next, those are more rows.
void fold_batch_into_rows(MatMulShape&);

}  // namespace fi
