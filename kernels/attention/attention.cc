// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention/attention.h"

#include "kernels/attention/rotary.h"

namespace fi {

#define FI_KERNEL(isa, family, symbol)                \
  namespace isa {                                     \
  Status symbol(const void*, void* const*, int, int); \
  }
#include "kernels/attention/kernels.inc"
#undef FI_KERNEL

namespace {

enum class Family { attention, attention_bf16, rotary };
struct Row {
  Isa isa;
  Family family;
  AttentionKernel kernel;
};
constexpr Row kRows[] = {
#define FI_KERNEL(isa, family, symbol) {Isa::isa, Family::family, {#symbol "_" #isa, isa::symbol}},
#include "kernels/attention/kernels.inc"
#undef FI_KERNEL
};

// Every family ends with a baseline row, which every machine has.
AttentionKernel select(Isa isa, Family family) {
  const Row* row = kRows;
  while (row->family != family || row->isa > isa) ++row;
  return row->kernel;
}

}  // namespace

AttentionKernel select_attention(Isa isa) { return select(isa, Family::attention); }
AttentionKernel select_attention_bf16(Isa isa) { return select(isa, Family::attention_bf16); }
AttentionKernel select_rotary(Isa isa) { return select(isa, Family::rotary); }

int64_t attention_units(const AttentionStep& p) {
  const AttentionRows r = attention_rows(p);
  const int64_t blocks = attention_by_rows(p) ? (r.rows + kAttentionSingle - 1) / kAttentionSingle : r.blocks;
  return p.batch * p.kv_heads * blocks;
}

int64_t attention_scratch(const AttentionStep& p, int parts) { return attention_layout(p).size * parts; }

double attention_flops(const AttentionStep& p) {
  const double pairs = static_cast<double>(p.sq) * static_cast<double>(p.sk) * (p.causal && p.sq > 1 ? 0.5 : 1.0);
  return 2.0 * static_cast<double>(p.batch * p.heads) * pairs * static_cast<double>(p.d + p.dv);
}

}  // namespace fi
