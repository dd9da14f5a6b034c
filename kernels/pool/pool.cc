// SPDX-License-Identifier: Apache-2.0
#include "kernels/pool/pool.h"

namespace fi {

#define FI_KERNEL(isa, kind, type, symbol)            \
  namespace isa {                                     \
  Status symbol(const void*, void* const*, int, int); \
  }
#define FI_GLOBAL FI_KERNEL
#include "kernels/pool/kernels.inc"
#undef FI_KERNEL
#undef FI_GLOBAL

PoolKernel select_pool(Isa isa, const PoolStep& q, DType type) {
  struct Row {
    Isa isa;
    PoolKind kind;
    DType type;
    PoolKernel kernel;
  };
  static const Row rows[] = {
#define FI_KERNEL(isa, kind, type, symbol) {Isa::isa, PoolKind::kind, DType::type, {#symbol "_" #isa, &isa::symbol}},
#define FI_GLOBAL(isa, kind, layout, symbol)
#include "kernels/pool/kernels.inc"
#undef FI_KERNEL
#undef FI_GLOBAL
  };
  for (const Row& row : rows)
    if (row.isa <= isa && row.kind == q.kind && row.type == type) return row.kernel;
  return {};
}

namespace {

constexpr bool first = false, last = true;

}  // namespace

PoolKernel select_global_pool(Isa isa, const GlobalPoolStep& q, DType type) {
  struct Row {
    Isa isa;
    PoolKind kind;
    bool channels_last;
    PoolKernel kernel;
  };
  static const Row rows[] = {
#define FI_KERNEL(isa, kind, type, symbol)
#define FI_GLOBAL(isa, kind, layout, symbol) {Isa::isa, PoolKind::kind, layout, {#symbol "_" #isa, &isa::symbol}},
#include "kernels/pool/kernels.inc"
#undef FI_KERNEL
#undef FI_GLOBAL
  };
  if (type != DType::f32) return {};
  for (const Row& row : rows)
    if (row.isa <= isa && row.kind == q.kind && row.channels_last == (q.inner != 1)) return row.kernel;
  return {};
}

double cost_of(const PoolStep& q) {
  return static_cast<double>(q.batch * q.g.out_pixels() * q.channels) * static_cast<double>(q.g.taps() + 2) / 8;
}

}  // namespace fi
