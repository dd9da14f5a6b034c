// SPDX-License-Identifier: Apache-2.0
#include "kernels/norm/norm.h"

#include <string_view>

#include "csrc/base/cpu.h"
#include "csrc/base/error.h"

namespace fi {

#define FI_KERNEL(isa, symbol)                        \
  namespace isa {                                     \
  Status symbol(const void*, void* const*, int, int); \
  }
#include "kernels/norm/kernels.inc"
#undef FI_KERNEL

namespace {

struct Row {
  Isa isa;
  const char* symbol;
  NormKernel kernel;
};
constexpr Row kRows[] = {
#define FI_KERNEL(isa, symbol) {Isa::isa, #symbol, {#symbol "_" #isa, isa::symbol}},
#include "kernels/norm/kernels.inc"
#undef FI_KERNEL
};

NormKernel select(Isa isa, std::string_view symbol) {
  for (const Row& row : kRows)
    if (row.isa <= isa && row.symbol == symbol) return {row.kernel.name + 4, row.kernel.run};  // without "run_"
  throw Error("no norm kernel");
}

}  // namespace

NormKernel select_row_norm(Isa isa) { return select(isa, "run_row_norm"); }
NormKernel select_group_norm(Isa isa) { return select(isa, "run_group_norm"); }
NormKernel select_last_group_norm(Isa isa) { return select(isa, "run_last_group_norm"); }

}  // namespace fi
