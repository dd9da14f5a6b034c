// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm/tile_f64.h"

#include "csrc/base/cpu.h"
#include "csrc/base/error.h"

namespace fi {

#define FI_KERNEL(isa, symbol)   \
  namespace isa {                \
  void symbol(const TileF64& t); \
  }
#include "kernels/gemm/kernels_f64.inc"
#undef FI_KERNEL

TileF64Kernel select_tile_f64(Isa isa) {
#define FI_KERNEL(isa_, symbol) \
  if (Isa::isa_ <= isa) return {#symbol "_" #isa_, isa_::symbol};
#include "kernels/gemm/kernels_f64.inc"
#undef FI_KERNEL
  throw Error("no float64 kernel");
}

}  // namespace fi
