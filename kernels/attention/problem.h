// SPDX-License-Identifier: Apache-2.0
// What the two forms of attention share: where things are, and which keys a row may see.
#pragma once
#include "kernels/attention/attention.h"
#include "kernels/simd/math.h"

namespace fi::FI_ISA {

// Element i of an array of floats, or of bfloat16 (to be read as such).
FI_INLINE const float* element(const void* x, int64_t i, bool bf16) {
  return reinterpret_cast<const float*>(static_cast<const char*>(x) + i * (bf16 ? 2 : 4));
}

FI_INLINE float widened(uint16_t x) {
  const uint32_t bits = static_cast<uint32_t>(x) << 16;
  float y;
  std::memcpy(&y, &bits, sizeof y);
  return y;
}

// One key head of one sample. Row r is query r % sq of head r / sq of the group.
struct KeyHead {
  const AttentionStep& p;
  int64_t batch, head, group;
  const float *q, *k, *v;
  float *o, *scores;
  const void* mask;
  int64_t length, offset;

  KeyHead(const AttentionStep& p, void* const* args, int64_t index)
      : p(p), batch(index / p.kv_heads), head(index % p.kv_heads), group(p.heads / p.kv_heads) {
    q = element(args[0], batch * p.q.b + head * group * p.q.h, p.q_bf16);
    k = element(args[1], batch * p.k.b + head * p.k.h, p.k_bf16);
    v = element(args[2], batch * p.v.b + head * p.v.h, p.v_bf16);
    mask = args[3];
    length = p.visible;
    offset = p.offset;
    if (p.has_lengths) {
      const int64_t given = static_cast<const int64_t*>(args[4])[batch];
      if (p.offset_by_length) offset = given - p.sq;
      length = given < 0 ? 0 : given < p.visible ? given : p.visible;
    }
    o = const_cast<float*>(element(args[5], batch * p.o.b + head * group * p.o.h, p.o_bf16));
    scores = static_cast<float*>(args[7]);
    if (scores) scores += (batch * p.heads + head * group) * p.sq * p.sk;
  }
  const float* query(int64_t row) const { return element(q, row / p.sq * p.q.h + row % p.sq * p.q.s, p.q_bf16); }
  float* output(int64_t row) const {
    return const_cast<float*>(element(o, row / p.sq * p.o.h + row % p.sq * p.o.s, p.o_bf16));
  }
  int64_t mask_start(int64_t row) const {
    return batch * p.mask_at.b + (head * group + row / p.sq) * p.mask_at.h + row % p.sq * p.mask_at.s;
  }
  // First key of a row, and the first one past it.
  int64_t begin(int64_t row) const {
    const int64_t lo = p.left < 0 ? 0 : row % p.sq + offset - p.left;
    return lo < 0 ? 0 : lo < length ? lo : length;
  }
  int64_t end(int64_t row) const {
    int64_t hi = length;
    const int64_t at = row % p.sq + offset + 1;
    if (p.causal && at < hi) hi = at;
    if (p.right >= 0 && at + p.right < hi) hi = at + p.right;
    return hi < 0 ? 0 : hi;
  }
};

FI_INLINE VF minus_infinity() { return neg(infinity()); }
// The number that is subtracted before exp: a row that has seen nothing but -inf stays at exp(-inf) = 0.
FI_INLINE VF safe(VF maximum) { return select(maximum == minus_infinity(), zero(), maximum); }
FI_INLINE float safe(float maximum) { return maximum == -__builtin_inff() ? 0.f : maximum; }

FI_INLINE void cap_scores(float* s, int64_t n, float softcap) {
  for (int64_t i = 0; i < n; i += VF::W) store(s + i, tanh(load(s + i)) * set1(softcap));
}

}  // namespace fi::FI_ISA
