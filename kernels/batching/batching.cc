// SPDX-License-Identifier: Apache-2.0
#include "kernels/batching/batching.h"

namespace fi {
namespace {

template <class T>
T* at_byte(void* p, int64_t bytes) {
  return reinterpret_cast<T*>(static_cast<char*>(p) + bytes);
}

bool pairs_fit(const int64_t* lengths, int64_t sequences, int64_t pairs) {
  int64_t sum = 0;
  for (int64_t s = 0; s < sequences; ++s) sum += lengths[s] * lengths[s];  // lengths_fit: no overflow below 2^31
  return sum == pairs;
}

// Elements of the mask before the sequence's own.
int64_t mask_start(PackedMask mask, int64_t first, int64_t pairs) {
  if (mask == PackedMask::pairs) return pairs;
  return mask == PackedMask::keys || mask == PackedMask::queries ? first : 0;
}

AttentionTensor mask_strides(const PackedAttention& p, int64_t length) {
  switch (p.mask) {
    case PackedMask::keys:
      return {0, p.mask_head, 0, 1};
    case PackedMask::queries:
      return {0, p.mask_head, 1, 0};
    case PackedMask::pairs:
      return {0, p.mask_head, length, 1};
    default:
      return {0, p.mask_head, 0, 0};
  }
}

}  // namespace

bool lengths_fit(const int64_t* lengths, int64_t sequences, int64_t tokens) {
  int64_t sum = 0;
  for (int64_t s = 0; s < sequences; ++s) {
    if (lengths[s] < 0 || lengths[s] > tokens - sum) return false;
    sum += lengths[s];
  }
  return sum == tokens;
}

Status packed_attention(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const PackedAttention*>(params);
  const auto* lengths = static_cast<const int64_t*>(args[4]);
  if (!lengths_fit(lengths, p.sequences, p.tokens)) return Status::bad_value;
  if (p.mask == PackedMask::pairs && !pairs_fit(lengths, p.sequences, p.mask_count)) return Status::bad_value;
  AttentionStep step = p.each;
  int64_t first = 0, pairs = 0;
  for (int64_t s = 0; s < p.sequences; ++s) {
    const int64_t n = lengths[s];
    if (n > 0) {
      step.sq = step.sk = step.visible = n;
      step.mask_at = mask_strides(p, n);
      const auto token = [&](int i, const AttentionTensor& x, bool bf16) {
        return at_byte<void>(args[i], first * x.s * (bf16 ? 2 : 4));
      };
      void* const own[] = {token(0, step.q, step.q_bf16),
                           token(1, step.k, step.k_bf16),
                           token(2, step.v, step.v_bf16),
                           args[3] ? at_byte<void>(args[3], mask_start(p.mask, first, pairs) * p.mask_bytes) : nullptr,
                           nullptr,
                           token(5, step.o, step.o_bf16),
                           args[6],
                           nullptr};
      if (const Status status = p.run(&step, own, part, parts); status != Status::ok) return status;
    }
    first += n;
    pairs += n * n;
  }
  return Status::ok;
}

Status packed_reduce(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const PackedReduce*>(params);
  const auto* lengths = static_cast<const int64_t*>(args[1]);
  if (!lengths_fit(lengths, p.sequences, p.tokens)) return Status::bad_value;
  const Range mine = part_of(p.sequences, part, parts);
  int64_t first = 0;
  for (int64_t s = 0; s < mine.end; first += lengths[s++]) {
    if (s < mine.begin) continue;
    const ReduceParams each{1, lengths[s], p.inner, lengths[s], p.fold, p.finish};
    for (int64_t o = 0; o < p.outer; ++o) {
      void* const own[] = {at_byte<void>(args[0], (o * p.tokens + first) * p.inner * p.bytes),
                           at_byte<void>(args[2], (o * p.sequences + s) * p.inner * p.bytes)};
      if (const Status status = p.run(&each, own, 0, 1); status != Status::ok) return status;
    }
  }
  return Status::ok;
}

}  // namespace fi
