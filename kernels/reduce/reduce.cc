// SPDX-License-Identifier: Apache-2.0
#include "kernels/reduce/reduce.h"

#include "csrc/base/cpu.h"
#include "csrc/base/error.h"

namespace fi {

#define FI_KERNEL(isa, symbol)                        \
  namespace isa {                                     \
  Status symbol(const void*, void* const*, int, int); \
  }
#include "kernels/reduce/kernels.inc"
#undef FI_KERNEL

ReduceKernel select_reduce(Isa isa) {
#define FI_KERNEL(isa_, symbol) \
  if (Isa::isa_ <= isa) return {"reduce_" #isa_, isa_::symbol};
#include "kernels/reduce/kernels.inc"
#undef FI_KERNEL
  throw Error("no reduce kernel");
}

}  // namespace fi
