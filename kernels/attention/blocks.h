// SPDX-License-Identifier: Apache-2.0
// The main form: up to 64 query rows by blocks of 128 keys. Scores are kept transposed, [key][row], so that lanes are
// rows: the softmax needs no reduction across lanes, K is broadcast from wherever it lies (no packing, any layout),
// only the queries are transposed, once.
#pragma once
#include "kernels/attention/problem.h"
#include "kernels/attention/tile.h"
#include "kernels/attention/transpose.h"

namespace fi::FI_ISA {

class QueryBlock {
 public:
  QueryBlock(const KeyHead& head, float* scratch, int64_t begin, int64_t end)
      : p_(head.p),
        head_(head),
        at_(attention_layout(head.p)),
        scratch_(scratch),
        begin_(begin),
        rows_(end - begin),
        width_((rows_ + 15) / 16 * 16) {}

  void run() {
    prepare();
    if (first_ >= last_) return write_empty();
    const int64_t b0 = first_ / kAttentionKeys, b1 = (last_ - 1) / kAttentionKeys;
    for (int64_t b = b0; b <= b1; ++b) {
      const int64_t k0 = b * kAttentionKeys, k1 = k0 + kAttentionKeys < p_.sk ? k0 + kAttentionKeys : p_.sk;
      score(k0, k1 - k0);
      cut(k0, k1 - k0);
      soften(k1 - k0, b == b0, b == b1);
      StoreOutput y{part(at_.output), output_width(), b == b0 ? nullptr : factor(), b == b1 ? sum() : nullptr, out_};
      product({part(at_.scores), 1, width_, head_.v + k0 * p_.v.s, p_.v.s, k1 - k0}, y, rows_, p_.dv);
    }
  }

 private:
  float* part(int64_t offset) { return scratch_ + offset; }
  float* maximum() { return part(at_.rows); }
  float* sum() { return part(at_.rows) + kAttentionRows; }
  float* factor() { return part(at_.rows) + 2 * kAttentionRows; }
  int32_t* row_begin() { return reinterpret_cast<int32_t*>(part(at_.rows) + 3 * kAttentionRows); }
  int32_t* row_end() { return reinterpret_cast<int32_t*>(part(at_.rows) + 4 * kAttentionRows); }
  int64_t output_width() const { return (p_.dv + 15) / 16 * 16; }

  void prepare() {
    first_ = p_.sk;
    last_ = all_ = 0;
    int64_t latest = 0, least = p_.sk;
    for (int64_t r = 0; r < width_; ++r) {
      const int64_t row = begin_ + (r < rows_ ? r : rows_ - 1);
      const int64_t b = head_.begin(row), e = head_.end(row);
      row_begin()[r] = static_cast<int32_t>(b);
      row_end()[r] = static_cast<int32_t>(e);
      out_[r] = head_.output(row);
      if (b < first_) first_ = b;
      if (b > latest) latest = b;
      if (e > last_) last_ = e;
      if (e < least) least = e;
    }
    from_ = latest;
    all_ = least;
    const float scale = p_.softcap > 0 ? p_.scale / p_.softcap : p_.scale;
    for (int64_t c = 0; c < p_.d; c += kAttentionKeys) {
      const int64_t n = p_.d - c < kAttentionKeys ? p_.d - c : kAttentionKeys;
      for (int64_t r = 0; r < width_; ++r) stage_query(r, c, n, scale);
      transpose_block(part(at_.stage), AttentionScratch::kStageWidth, part(at_.query) + c * width_, width_, width_,
                      (n + 3) / 4 * 4);
    }
  }

  void stage_query(int64_t r, int64_t c, int64_t n, float scale) {
    const float* q = head_.query(begin_ + (r < rows_ ? r : rows_ - 1)) + c;
    float* y = part(at_.stage) + r * AttentionScratch::kStageWidth;
    const VF f = set1(scale);
    int64_t i = 0;
    for (; i + VF::W <= n; i += VF::W) store(y + i, load(q + i) * f);
    if (i < n) store(y + i, load(q + i, static_cast<int>(n - i)) * f);
  }

  void score(int64_t k0, int64_t keys) {
    float* s = part(at_.scores);
    product({head_.k + k0 * p_.k.s, p_.k.s, p_.k.e, part(at_.query), width_, p_.d}, StoreScores{s, width_}, keys,
            width_);
    if (p_.softcap > 0) cap_scores(s, keys * width_, p_.softcap);
    if (p_.mask != AttentionMask::none) add_mask(k0, keys);
  }

  bool same_mask_for_all_rows() const {
    return (p_.sq == 1 || p_.mask_at.s == 0) && (head_.group == 1 || p_.mask_at.h == 0);
  }
  void add_mask(int64_t k0, int64_t keys) {
    float* s = part(at_.scores);
    if (same_mask_for_all_rows()) {
      for (int64_t k = 0; k < keys; ++k) {
        const VF m = set1(mask_value(head_.mask_start(begin_) + (k0 + k) * p_.mask_at.e));
        for (int64_t i = 0; i < width_; i += VF::W) store(s + k * width_ + i, load(s + k * width_ + i) + m);
      }
      return;
    }
    for (int64_t r = 0; r < width_; ++r) stage_mask(r, k0, keys);
    float* m = part(at_.mask);
    transpose_block(part(at_.stage), AttentionScratch::kStageWidth, m, width_, width_, (keys + 3) / 4 * 4);
    for (int64_t i = 0; i < keys * width_; i += VF::W) store(s + i, load(s + i) + load(m + i));
  }
  float mask_value(int64_t at) const {
    if (p_.mask == AttentionMask::added) return static_cast<const float*>(head_.mask)[at];
    return static_cast<const uint8_t*>(head_.mask)[at] ? 0.f : -__builtin_inff();
  }
  void stage_mask(int64_t r, int64_t k0, int64_t keys) {
    const int64_t at = head_.mask_start(begin_ + (r < rows_ ? r : rows_ - 1)) + k0 * p_.mask_at.e;
    float* y = part(at_.stage) + r * AttentionScratch::kStageWidth;
    int64_t i = 0;
    if (p_.mask_at.e == 1 && p_.mask == AttentionMask::added) {
      const float* m = static_cast<const float*>(head_.mask) + at;
      for (; i + VF::W <= keys; i += VF::W) store(y + i, load(m + i));
    } else if (p_.mask_at.e == 1) {
      const uint8_t* m = static_cast<const uint8_t*>(head_.mask) + at;
      for (; i + VF::W <= keys; i += VF::W) store(y + i, select(load_mask(m + i), zero(), minus_infinity()));
    }
    for (; i < keys; ++i) y[i] = mask_value(at + i * p_.mask_at.e);
  }

  // -inf where a row does not see a key of the block.
  void cut(int64_t k0, int64_t keys) {
    if (from_ <= k0 && all_ >= k0 + keys) return;
    for (int64_t k = 0; k < keys; ++k) {
      const VI key = set1i(static_cast<int32_t>(k0 + k));
      for (int64_t i = 0; i < width_; i += VF::W) {
        float* s = part(at_.scores) + k * width_ + i;
        const VM hidden = (load(row_begin() + i) > key) | ~(load(row_end() + i) > key);
        store(s, select(hidden, minus_infinity(), load(s)));
      }
    }
  }

  // Scores → exp(score − maximum); the factors of what was summed before, and of everything at the end.
  void soften(int64_t keys, bool is_first, bool is_last) {
    const int64_t vectors = width_ / VF::W, step = vectors % 4 == 0   ? 4
                                                   : vectors % 3 == 0 ? 3
                                                   : vectors % 2 == 0 ? 2
                                                                      : 1;
    for (int64_t v = 0; v < vectors; v += step) {
      if (step == 4)
        soften_columns<4>(v * VF::W, keys, is_first, is_last);
      else if (step == 3)
        soften_columns<3>(v * VF::W, keys, is_first, is_last);
      else if (step == 2)
        soften_columns<2>(v * VF::W, keys, is_first, is_last);
      else
        soften_columns<1>(v * VF::W, keys, is_first, is_last);
    }
  }
  template <int NV>
  void soften_columns(int64_t column, int64_t keys, bool is_first, bool is_last) {
    float* s = part(at_.scores) + column;
    VF top[NV], shift[NV], total[NV];
    FI_UNROLL for (int j = 0; j < NV; ++j) {
      top[j] = is_first ? minus_infinity() : load(maximum() + column + j * VF::W);
      total[j] = zero();
    }
    for (int64_t k = 0; k < keys; ++k) {
      FI_UNROLL for (int j = 0; j < NV; ++j) top[j] = max(load(s + k * width_ + j * VF::W), top[j]);
    }
    FI_UNROLL for (int j = 0; j < NV; ++j) shift[j] = safe(top[j]);
    for (int64_t k = 0; k < keys; ++k) {
      FI_UNROLL for (int j = 0; j < NV; ++j) {
        const VF e = exp(load(s + k * width_ + j * VF::W) - shift[j]);
        store(s + k * width_ + j * VF::W, e);
        total[j] = total[j] + e;
      }
    }
    FI_UNROLL for (int j = 0; j < NV; ++j) {
      const int64_t at = column + j * VF::W;
      if (!is_first) {
        const VF f = exp(load(maximum() + at) - shift[j]);
        total[j] = fma(load(sum() + at), f, total[j]);
        store(factor() + at, f);
      }
      store(maximum() + at, top[j]);
      store(sum() + at, is_last ? reciprocal(total[j]) : total[j]);
    }
  }
  VF reciprocal(VF total) const {
    const VF inverse = set1(1.f) / total;
    return p_.zero_empty ? select(total == zero(), zero(), inverse) : inverse;
  }

  void write_empty() {
    const float value = p_.zero_empty || p_.sk == 0 ? 0.f : __builtin_nanf("");
    for (int64_t r = 0; r < rows_; ++r)
      for (int64_t i = 0; i < p_.dv; ++i) out_[r][i] = value;
  }

  const AttentionStep& p_;
  const KeyHead& head_;
  AttentionScratch at_;
  float* scratch_;
  int64_t begin_, rows_, width_;
  int64_t first_ = 0, last_ = 0;  // keys that some row sees
  int64_t from_ = 0, all_ = 0;    // keys that every row sees
  float* out_[kAttentionRows];
};

}  // namespace fi::FI_ISA
