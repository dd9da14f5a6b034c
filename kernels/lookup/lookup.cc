// SPDX-License-Identifier: Apache-2.0
#include "kernels/lookup/lookup.h"

#include "csrc/base/error.h"

namespace fi {

#define FI_KERNEL(isa, symbol)                        \
  namespace isa {                                     \
  Status symbol(const void*, void* const*, int, int); \
  }
#include "kernels/lookup/kernels.inc"
#undef FI_KERNEL

LookupKernel select_lookup(Isa isa) {
#define FI_KERNEL(isa_, symbol) \
  if (Isa::isa_ <= isa) return {#symbol "_" #isa_, isa_::symbol};
#include "kernels/lookup/kernels.inc"
#undef FI_KERNEL
  throw Error("no lookup kernel");
}

}  // namespace fi
