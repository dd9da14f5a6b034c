// SPDX-License-Identifier: Apache-2.0
// Matrix products of the types without a microkernel (wide integers): plain loops, and the broadcast addend
// of Gemm.
#pragma once
#include "csrc/base/dtype.h"
#include "csrc/base/step.h"

namespace fi {

constexpr int kPlainBatchRank = 10;

// Y[i] = alpha * A[i] * B[i] + beta * C, elements of one type; integers wrap around. k ascends for every element.
struct PlainMatMul {
  int64_t m = 0, n = 0, k = 0;
  int64_t a_m = 0, a_k = 0, b_k = 0, b_n = 0;  // strides in elements
  int64_t c_m = 0, c_n = 0;                    // of the addend; 0 where it is broadcast
  int batch_rank = 0;
  int64_t batch[kPlainBatchRank] = {}, a_batch[kPlainBatchRank] = {}, b_batch[kPlainBatchRank] = {};
  double alpha = 1, beta = 1;
};
// s32, u32, s64, u64 without alpha and beta; nullptr for other types. args: A, B, C or null, Y. Work is cut by rows.
StepFn plain_matmul_step(DType);

// Y[m, n] = beta * C broadcast, float32: args C, Y.
struct BroadcastAddend {
  int64_t m = 0, n = 0, c_m = 0, c_n = 0;
  float beta = 1;
};
Status broadcast_addend_step(const void* params, void* const* args, int part, int parts);

}  // namespace fi
