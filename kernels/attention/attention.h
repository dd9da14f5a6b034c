// SPDX-License-Identifier: Apache-2.0
// Attention without a score matrix in memory, f32:
//
//   S[b,n,i,j] = softcap(scale · Σ_e Q[b,n,i,e]·K[b,n/g,j,e]) + mask[b,n,i,j]      for j in the keys of row i, else
//   -inf O[b,n,i,:] = Σ_j softmax_j(S)[b,n,i,j] · V[b,n/g,j,:]                          g = heads / kv_heads
//
// Keys of row i: j < length[b]; j <= i + offset (causal), i + offset − left <= j <= i + offset + right (windows).
// Keys pass by in blocks of kAttentionKeys from key 0 with a running maximum, so the order of every sum depends on the
// extents of one sample only: not on the batch, the parts or the threads.
//
// bfloat16 (AttentionStep::bf16): Q, K, V and exp(S − maximum) are rounded to bfloat16 before they are multiplied;
// sums, the softmax and its denominator are float32.
#pragma once
#include <cstdint>

#include "csrc/base/cpu.h"
#include "csrc/base/step.h"

namespace fi {

constexpr int64_t kAttentionKeys = 128;  // per block: 128 x 64 scores are 32 KiB
constexpr int64_t kAttentionRows = 64;   // per block of queries, at most
// Up to this many query rows per key head each row is computed on its own, at the speed that K and V come from memory.
constexpr int64_t kAttentionSingle = 4;

// Strides in floats of a tensor [batch, head, sequence, element].
struct AttentionTensor {
  int64_t b = 0, h = 0, s = 0, e = 1;
};

enum class AttentionMask : int32_t {
  none,
  added,  // float
  kept,   // bool: 0 → -inf
};
enum class AttentionScores : int32_t { none, raw, capped, masked, softmax };

struct AttentionStep {
  int64_t batch = 0, heads = 0, kv_heads = 0, sq = 0, sk = 0, d = 0, dv = 0;
  AttentionTensor q, k, v, o;  // e is 1 except in k
  int64_t visible = 0;         // keys from here on are seen by no row (at most sk)
  float scale = 1, softcap = 0;
  AttentionMask mask = AttentionMask::none;
  AttentionTensor mask_at;  // strides in mask elements: batch, head, query, key
  bool causal = false;
  bool zero_empty = false;        // a row without keys is 0 (ONNX Attention), else NaN (softmax of nothing but -inf)
  bool has_lengths = false;       // args[4]: int64 [batch]
  bool offset_by_length = false;  // the offset of a sample is length − sq
  int64_t offset = 0;             // of the query positions against the key positions
  int64_t left = -1, right = -1;  // window, -1: open
  bool bf16 = false;              // select_attention_bf16; these then say what is bfloat16 in memory, in place of float
  bool q_bf16 = false, k_bf16 = false, v_bf16 = false, o_bf16 = false;
  // Dense output [batch, heads, sq, sk] of the scores at one stage.
  AttentionScores scores = AttentionScores::none;
};

struct AttentionKernel {
  const char* name;
  // args: Q, K, V, mask, lengths, O, scratch, scores. Those left out are null.
  StepFn run;
};
AttentionKernel select_attention(Isa);
AttentionKernel select_attention_bf16(Isa);  // for steps with bf16 set and without scores
// Pieces of work that parts are cut from.
int64_t attention_units(const AttentionStep&);
// Floats of scratch that `parts` parts need.
int64_t attention_scratch(const AttentionStep&, int parts);
double attention_flops(const AttentionStep&);

// Static: objects of several instruction sets include this, and no symbol may be shared between them.

// Each row on its own: few rows, or the scores are wanted.
static inline bool attention_by_rows(const AttentionStep& p) {
  return !p.bf16 && (p.heads / p.kv_heads * p.sq <= kAttentionSingle || p.scores != AttentionScores::none);
}

// Query rows of one key head in blocks, cut at multiples of 16 rows and as even as possible.
struct AttentionRows {
  int64_t rows, vectors, blocks;
};
static inline AttentionRows attention_rows(const AttentionStep& p) {
  const int64_t rows = p.heads / p.kv_heads * p.sq, vectors = (rows + 15) / 16;
  return {rows, vectors, (vectors + 3) / 4};
}
static inline int64_t attention_row(const AttentionRows& r, int64_t block) {
  const int64_t row = r.vectors * block / r.blocks * 16;
  return row < r.rows ? row : r.rows;
}

// One part's scratch: offsets in floats, multiples of 16.
struct AttentionScratch {
  static constexpr int64_t kStageWidth = kAttentionKeys + 16;  // no power of two: 16 rows fall into different L1 sets
  int64_t query, scores, mask, stage, output, rows, key, value, size;
};
static inline AttentionScratch attention_layout(const AttentionStep& p) {
  const bool single = attention_by_rows(p);
  const int64_t lanes = single ? kAttentionSingle : kAttentionRows;
  AttentionScratch s;
  s.query = 0;
  s.scores = s.query + (p.d + 15) / 16 * 16 * lanes;
  s.mask = s.scores + kAttentionKeys * lanes;
  s.stage = s.mask + (single || p.mask == AttentionMask::none ? 0 : kAttentionKeys * lanes);
  s.output = s.stage + (single ? 0 : AttentionScratch::kStageWidth * lanes);
  s.rows = s.output + (p.dv + 15) / 16 * 16 * lanes;
  s.key = s.rows + 5 * kAttentionRows;
  // A block of keys, and of values, in pairs.
  s.value = s.key + (p.bf16 ? kAttentionKeys * ((p.d + 1) / 2) : 0);
  s.size = s.value + (p.bf16 ? kAttentionKeys / 2 * ((p.dv + 15) / 16 * 16) : 0);
  return s;
}

}  // namespace fi
