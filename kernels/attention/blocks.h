// SPDX-License-Identifier: Apache-2.0
// The main form: up to 64 query rows by blocks of 128 keys. Scores are kept transposed, [key][row], so that lanes are
// rows: the softmax needs no reduction across lanes, K is broadcast from wherever it lies (no packing, any layout),
// only the queries are transposed, once.
#pragma once
#include "kernels/attention/problem.h"
#include "kernels/attention/tile.h"
#include "kernels/attention/transpose.h"

namespace fi::FI_ISA {

// n elements, `apart` elements from one to the next, as bfloat16, and a 0 behind an odd number.
FI_INLINE void narrow_row(const float* x, bool bf16, int64_t n, int64_t apart, uint16_t* y) {
  const auto* h = reinterpret_cast<const uint16_t*>(x);
  int64_t i = 0;
  if (apart != 1) {
    alignas(64) float some[VF::W];
    for (int64_t k = 0; k < n; k += VF::W) {
      const int m = n - k < VF::W ? static_cast<int>(n - k) : VF::W;
      for (int j = 0; j < m; ++j) some[j] = bf16 ? widened(h[(k + j) * apart]) : x[(k + j) * apart];
      store_bf16(y + k, load(some, m), m);
    }
  } else if (bf16) {
    for (; i + 2 * VF::W <= n; i += 2 * VF::W) std::memcpy(y + i, h + i, 4 * VF::W);
    for (; i < n; ++i) y[i] = h[i];
  } else {
    for (; i + VF::W <= n; i += VF::W) store_bf16(y + i, load(x + i));
    if (i < n) store_bf16(y + i, load(x + i, static_cast<int>(n - i)), static_cast<int>(n - i));
  }
  if (n % 2) y[n] = 0;
}

// How the products are taken.
struct FloatForm {
  static constexpr bool kPairs = false;
};
template <class Dot>
struct PairForm {
  static constexpr bool kPairs = true;
  using A = typename Dot::A;
  using B = typename Dot::B;
  FI_INLINE A all(const float* p) {
    int32_t pair;
    std::memcpy(&pair, p, sizeof pair);
    return Dot::split(set1i(pair));
  }
  FI_INLINE B each(const float* p) { return Dot::split(as_int(load(p))); }
  FI_INLINE B each(const float* p, int n) { return Dot::split(as_int(load(p, n))); }
  FI_INLINE VF add(VF sum, const A& a, const B& b) { return Dot::add(sum, a, b); }
  FI_INLINE VI round(VF even, VF odd) { return Dot::round(even, odd); }
};

template <class Form, class Out>
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
      add_values(k0, k1 - k0,
                 {part(at_.output), output_width(), b == b0 ? nullptr : factor(), b == b1 ? sum() : nullptr, out_});
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
      out_[r] = reinterpret_cast<Out*>(head_.output(row));
      if (b < first_) first_ = b;
      if (b > latest) latest = b;
      if (e > last_) last_ = e;
      if (e < least) least = e;
    }
    from_ = latest;
    all_ = least;
    for (int64_t c = 0; c < depth(); c += kAttentionKeys) {
      const int64_t n = depth() - c < kAttentionKeys ? depth() - c : kAttentionKeys;
      for (int64_t r = 0; r < width_; ++r) stage_query(r, c, n);
      transpose_block(part(at_.stage), AttentionScratch::kStageWidth, part(at_.query) + c * width_, width_, width_,
                      (n + 3) / 4 * 4);
    }
  }

  // Floats, or pairs, of a query or a key.
  int64_t depth() const { return Form::kPairs ? (p_.d + 1) / 2 : p_.d; }
  float scale() const { return p_.softcap > 0 ? p_.scale / p_.softcap : p_.scale; }

  void stage_query(int64_t r, int64_t c, int64_t n) {
    const float* q = head_.query(begin_ + (r < rows_ ? r : rows_ - 1));
    float* y = part(at_.stage) + r * AttentionScratch::kStageWidth;
    if constexpr (Form::kPairs) {
      const int64_t left = p_.d - 2 * c < 2 * n ? p_.d - 2 * c : 2 * n;
      return narrow_row(element(q, 2 * c, p_.q_bf16), p_.q_bf16, left, 1, reinterpret_cast<uint16_t*>(y));
    }
    q += c;
    const VF f = set1(scale());
    int64_t i = 0;
    for (; i + VF::W <= n; i += VF::W) store(y + i, load(q + i) * f);
    if (i < n) store(y + i, load(q + i, static_cast<int>(n - i)) * f);
  }

  void score(int64_t k0, int64_t keys) {
    float* s = part(at_.scores);
    if constexpr (Form::kPairs) {
      const float* k = pair_keys(k0, keys);
      const int64_t row = k == part(at_.key) ? depth() : p_.k.s / 2;
      product<Form>({k, row, 1, part(at_.query), width_, depth()}, StoreScaled{s, width_, scale()}, keys, width_);
    } else {
      product({head_.k + k0 * p_.k.s, p_.k.s, p_.k.e, part(at_.query), width_, p_.d}, StoreScores{s, width_}, keys,
              width_);
    }
    if (p_.softcap > 0) cap_scores(s, keys * width_, p_.softcap);
    if (p_.mask != AttentionMask::none) add_mask(k0, keys);
  }

  // Keys in pairs of elements: where they lie, or a rounded copy.
  const float* pair_keys(int64_t k0, int64_t keys) {
    if (p_.k_bf16 && p_.k.e == 1 && p_.d % 2 == 0 && p_.k.s % 2 == 0) return element(head_.k, k0 * p_.k.s, true);
    for (int64_t k = 0; k < keys; ++k) {
      auto* y = reinterpret_cast<uint16_t*>(part(at_.key) + k * depth());
      narrow_row(element(head_.k, (k0 + k) * p_.k.s, p_.k_bf16), p_.k_bf16, p_.d, p_.k.e, y);
    }
    return part(at_.key);
  }

  void add_values(int64_t k0, int64_t keys, const StoreOutput<Out>& y) {
    if constexpr (Form::kPairs) {
      for (int64_t k = 0; k < keys; k += 2) pair_values(k0 + k, k + 1 < keys, part(at_.value) + k / 2 * output_width());
      product<Form>({part(at_.scores), 1, width_, part(at_.value), output_width(), (keys + 1) / 2}, y, rows_, p_.dv);
    } else {
      product({part(at_.scores), 1, width_, head_.v + k0 * p_.v.s, p_.v.s, keys}, y, rows_, p_.dv);
    }
  }
  // Values of key k and, if `both`, of the next: one pair per element.
  void pair_values(int64_t k, bool both, float* y) {
    const float *even = element(head_.v, k * p_.v.s, p_.v_bf16), *odd = both ? element(even, p_.v.s, p_.v_bf16) : even;
    int64_t i = 0;
    for (; i + VF::W <= p_.dv; i += VF::W) pair_vectors(even, odd, both, i, VF::W, y);
    if (i < p_.dv) pair_vectors(even, odd, both, i, static_cast<int>(p_.dv - i), y);
  }
  FI_INLINE_MEMBER void pair_vectors(const float* even, const float* odd, bool both, int64_t i, int n, float* y) const {
    const VF low = load_either(even, i, n), high = both ? load_either(odd, i, n) : zero();
    store(y + i, as_float(p_.v_bf16 ? srl<16>(as_int(low)) | as_int(high) : Form::round(low, high)));
  }
  FI_INLINE_MEMBER VF load_either(const float* x, int64_t i, int n) const {
    if (p_.v_bf16) {
      const uint16_t* h = reinterpret_cast<const uint16_t*>(x) + i;
      return n == VF::W ? load_bf16(h) : load_bf16(h, n);
    }
    return n == VF::W ? load(x + i) : load(x + i, n);
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
    if constexpr (Form::kPairs) {
      for (int64_t k = 0; k < keys; k += 2) soften_pair(s, k, k + 1 < keys, shift, total);
    } else {
      for (int64_t k = 0; k < keys; ++k) {
        FI_UNROLL for (int j = 0; j < NV; ++j) {
          const VF e = exp(load(s + k * width_ + j * VF::W) - shift[j]);
          store(s + k * width_ + j * VF::W, e);
          total[j] = total[j] + e;
        }
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
  // Rows k and k + 1 (if `both`) become row k / 2 of pairs, in place.
  template <int NV>
  void soften_pair(float* s, int64_t k, bool both, const VF (&shift)[NV], VF (&total)[NV]) {
    FI_UNROLL for (int j = 0; j < NV; ++j) {
      const float* x = s + k * width_ + j * VF::W;
      const VF even = exp(load(x) - shift[j]);
      const VF odd = both ? exp(load(x + width_) - shift[j]) : zero();
      total[j] = total[j] + even + odd;
      store(s + k / 2 * width_ + j * VF::W, as_float(Form::round(even, odd)));
    }
  }
  VF reciprocal(VF total) const {
    const VF inverse = set1(1.f) / total;
    return p_.zero_empty ? select(total == zero(), zero(), inverse) : inverse;
  }

  void write_empty() {
    const VF value = set1(p_.zero_empty || p_.sk == 0 ? 0.f : __builtin_nanf(""));
    for (int64_t r = 0; r < rows_; ++r)
      for (int64_t i = 0; i < p_.dv; i += VF::W)
        store_as(out_[r] + i, value, p_.dv - i < VF::W ? static_cast<int>(p_.dv - i) : VF::W);
  }

  const AttentionStep& p_;
  const KeyHead& head_;
  AttentionScratch at_;
  float* scratch_;
  int64_t begin_, rows_, width_;
  int64_t first_ = 0, last_ = 0;  // keys that some row sees
  int64_t from_ = 0, all_ = 0;    // keys that every row sees
  Out* out_[kAttentionRows];
};

}  // namespace fi::FI_ISA
