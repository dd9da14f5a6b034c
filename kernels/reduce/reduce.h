// SPDX-License-Identifier: Apache-2.0
// y[o, i] = finish(combine over k of map(x[o, k, i])),  x [outer, n, inner] float32, y [outer, inner].
// n = 0 gives the identity of the combination.
#pragma once
#include <cstdint>

#include "csrc/base/step.h"

namespace fi {

enum class Isa : int;  // csrc/base/cpu.h, which brings in code that must not be compiled per instruction set

enum class Fold : int32_t { sum, max, min, product, sum_abs, sum_square, log_sum_exp };
enum class Finish : int32_t { none, mean, root, log };

struct ReduceParams {
  int64_t outer, n, inner;
  int64_t count;  // what the mean divides by: n, unless several axes are reduced one after the other
  Fold fold;
  Finish finish;
};

// Units that can be split: rows when inner is 1, else rows times blocks of 64 columns.
constexpr int64_t kReduceBlock = 64;
static inline __attribute__((always_inline)) int64_t reduce_units(const ReduceParams& p) {
  return p.inner == 1 ? p.outer : p.outer * ((p.inner + kReduceBlock - 1) / kReduceBlock);
}

struct ReduceKernel {
  const char* name;
  StepFn run;
};
ReduceKernel select_reduce(Isa isa);

}  // namespace fi
