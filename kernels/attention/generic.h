// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "kernels/attention/blocks.h"
#include "kernels/attention/rows.h"

namespace fi::FI_ISA {

static void attention_single(const KeyHead& head, float* scratch, int64_t begin, int64_t end) {
  const int64_t sk = head.p.sk, n = end - begin;
  SingleRow rows[kAttentionSingle];
  for (int64_t r = 0; r < n; ++r) rows[r].start(head, scratch, begin + r, r);
  // Key blocks outside: the rows of a group share K and V while these are in the cache.
  for (int64_t k = 0; k < sk; k += kAttentionKeys)
    for (int64_t r = 0; r < n; ++r) rows[r].block(k, k + kAttentionKeys < sk ? k + kAttentionKeys : sk);
  for (int64_t r = 0; r < n; ++r) rows[r].finish();
}

Status attention_f32(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const AttentionStep*>(params);
  if (p.batch * p.heads * p.sq == 0) return Status::ok;
  const AttentionScratch at = attention_layout(p);
  const AttentionRows rows = attention_rows(p);
  float* scratch = static_cast<float*>(args[6]) + part * at.size;
  const bool single = attention_by_rows(p);
  const int64_t blocks = single ? (rows.rows + kAttentionSingle - 1) / kAttentionSingle : rows.blocks;
  const Range range = part_of(p.batch * p.kv_heads * blocks, part, parts);
  for (int64_t u = range.begin; u < range.end; ++u) {
    const KeyHead head(p, args, u / blocks);
    const int64_t b = u % blocks;
    if (single) {
      const int64_t begin = b * kAttentionSingle, end = begin + kAttentionSingle;
      attention_single(head, scratch, begin, end < rows.rows ? end : rows.rows);
    } else {
      QueryBlock<FloatForm, float>(head, scratch, attention_row(rows, b), attention_row(rows, b + 1)).run();
    }
  }
  return Status::ok;
}

}  // namespace fi::FI_ISA
