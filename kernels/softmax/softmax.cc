// SPDX-License-Identifier: Apache-2.0
#include "kernels/softmax/softmax.h"

#include "csrc/base/cpu.h"
#include "csrc/base/error.h"

namespace fi {

#define FI_KERNEL(isa, symbol)                        \
  namespace isa {                                     \
  Status symbol(const void*, void* const*, int, int); \
  }
#include "kernels/softmax/kernels.inc"
#undef FI_KERNEL

SoftmaxKernel select_softmax(Isa isa) {
#define FI_KERNEL(isa_, symbol) \
  if (Isa::isa_ <= isa) return {"softmax_" #isa_, isa_::symbol};
#include "kernels/softmax/kernels.inc"
#undef FI_KERNEL
  throw Error("no softmax kernel");
}

}  // namespace fi
