// SPDX-License-Identifier: Apache-2.0
// A function of one byte as a table: Y[r * y_row + c] = table[X[r * x_row + c]], for r < rows, c < columns.
#pragma once
#include "csrc/base/cpu.h"
#include "csrc/base/step.h"

namespace fi {

struct LookupStep {
  int64_t rows = 0, columns = 0, x_row = 0, y_row = 0;
};
struct LookupKernel {
  const char* name;
  StepFn run;  // args: X, table [256], Y
};
LookupKernel select_lookup(Isa);

}  // namespace fi
