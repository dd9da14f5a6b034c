// SPDX-License-Identifier: Apache-2.0
// Sequences of different lengths one behind the other, without padding. lengths: int64 [sequences]; sequence s holds
// the tokens first[s] .. first[s] + lengths[s], first[s] = Σ lengths[r < s]; Σ lengths = tokens.
//
//   attention: kernels/attention on each sequence, queries and keys of that sequence alone
//   reduction: Y[o, s, i] = kernels/reduce over the tokens k of sequence s of X[o, k, i]
//
// Both call the plain kernel once per sequence with the parameters that the sequence has on its own, so a sequence's
// bits are those that it has alone.
#pragma once
#include "kernels/attention/attention.h"
#include "kernels/reduce/reduce.h"

namespace fi {

// What a mask says of a score: its axes among (query, key) that are as long as the sequence.
enum class PackedMask : int32_t {
  none,
  fixed,    // neither: one number per head
  keys,     // [heads, tokens], along the keys
  queries,  // [heads, tokens], along the queries
  pairs,    // [heads, Σ lengths²], row-major per sequence
};

struct PackedAttention {
  AttentionStep each;  // as for one sequence, strides those of the packed tensors; sq, sk, visible come from lengths
  StepFn run;
  int64_t sequences, tokens, mask_count;  // mask_count: extent of the mask's last packed axis
  PackedMask mask;
  int64_t mask_head, mask_bytes;  // stride in elements, bytes per element
};
// args: Q, K, V, mask, lengths, O, scratch.
Status packed_attention(const void* params, void* const* args, int part, int parts);

struct PackedReduce {
  StepFn run;
  Fold fold;
  Finish finish;
  int64_t outer, sequences, tokens, inner, bytes;  // bytes per element
};
// args: X, lengths, Y.
Status packed_reduce(const void* params, void* const* args, int part, int parts);

// Whether the lengths are what the packed tensors were made for; they are data, and decide what is read.
bool lengths_fit(const int64_t* lengths, int64_t sequences, int64_t tokens);

}  // namespace fi
