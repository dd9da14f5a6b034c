// SPDX-License-Identifier: Apache-2.0
// Over k of x [outer, n, inner] float32:  softmax: y_k = e^(x_k − m) / Σ_j e^(x_j − m);  log: y_k = x_k − m − log Σ_j
// e^(x_j − m), with m the maximum. In place is allowed.
#pragma once
#include <cstdint>

#include "csrc/base/step.h"

namespace fi {

enum class Isa : int;  // csrc/base/cpu.h, which brings in code that must not be compiled per instruction set

struct SoftmaxParams {
  int64_t outer, n, inner;
  bool log;
};

constexpr int64_t kSoftmaxBlock = 16;  // columns that are split as one
static inline __attribute__((always_inline)) int64_t softmax_units(const SoftmaxParams& p) {
  return p.inner == 1 ? p.outer : p.outer * ((p.inner + kSoftmaxBlock - 1) / kSoftmaxBlock);
}

struct SoftmaxKernel {
  const char* name;
  StepFn run;
};
SoftmaxKernel select_softmax(Isa isa);

}  // namespace fi
