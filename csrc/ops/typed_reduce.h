// SPDX-License-Identifier: Apache-2.0
// Reductions of types other than float32, one element at a time. Same parameters as kernels/reduce.
#pragma once
#include "csrc/base/dtype.h"
#include "csrc/base/step.h"

namespace fi {

StepFn typed_reduce(DType t);  // nullptr: no such reduction. Bool: maximum and minimum

// y[o, i] = the k where x[o, k, i] is largest or smallest; int64.
struct ArgParams {
  int64_t outer, n, inner;
  bool smallest, last;  // last: of equal values
};
StepFn typed_arg(DType t);

// y[o, k, i] = Σ or Π of x[o, j, i] over j <= k (j < k when exclusive; the other way when reverse).
struct CumulateParams {
  int64_t outer, n, inner;
  bool product, exclusive, reverse;
};
StepFn typed_cumulate(DType t);

}  // namespace fi
