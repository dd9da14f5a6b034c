// SPDX-License-Identifier: Apache-2.0
// attention_bf16: the main form on pairs of bfloat16. A multiplier gives the instruction: types A and B made by split
// from 32-bit lanes of two bfloat16, VF add(VF sum, A, B) = sum + the two products per lane, and VI round(even, odd),
// the bfloat16 of two floats per lane as a pair.
#pragma once
#include "kernels/attention/blocks.h"

namespace fi::FI_ISA {

// Any machine: the halves of a pair are the upper bits of two floats.
struct WidenedPairs {
  struct A {
    VF even, odd;
  };
  using B = A;
  FI_INLINE VI high() { return set1i(static_cast<int32_t>(0xffff0000u)); }
  FI_INLINE A split(VI pairs) { return {as_float(shl<16>(pairs)), as_float(pairs & high())}; }
  FI_INLINE VF add(VF sum, const A& a, const B& b) { return fma(a.odd, b.odd, fma(a.even, b.even, sum)); }
  FI_INLINE VI nearest(VF x) {
    const VI bits = as_int(x), up = bits + set1i(0x7fff) + (srl<16>(bits) & set1i(1));
    return select(is_nan(x), bits | set1i(0x400000), up);
  }
  FI_INLINE VI round(VF even, VF odd) { return srl<16>(nearest(even)) | (nearest(odd) & high()); }
};

template <class Dot>
static Status attention_of_pairs(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const AttentionStep*>(params);
  if (p.batch * p.heads * p.sq == 0) return Status::ok;
  const AttentionRows rows = attention_rows(p);
  float* scratch = static_cast<float*>(args[6]) + part * attention_layout(p).size;
  const Range range = part_of(p.batch * p.kv_heads * rows.blocks, part, parts);
  for (int64_t u = range.begin; u < range.end; ++u) {
    const KeyHead head(p, args, u / rows.blocks);
    const int64_t b = u % rows.blocks, begin = attention_row(rows, b), end = attention_row(rows, b + 1);
    if (p.o_bf16)
      QueryBlock<PairForm<Dot>, uint16_t>(head, scratch, begin, end).run();
    else
      QueryBlock<PairForm<Dot>, float>(head, scratch, begin, end).run();
  }
  return Status::ok;
}

}  // namespace fi::FI_ISA

#define FI_ATTENTION_BF16_VARIANT(multiplier)                                         \
  namespace fi::FI_ISA {                                                              \
  Status attention_bf16(const void* params, void* const* args, int part, int parts) { \
    return attention_of_pairs<multiplier>(params, args, part, parts);                 \
  }                                                                                   \
  }
