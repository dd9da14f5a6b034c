// SPDX-License-Identifier: Apache-2.0
// The form for few query rows (decoding): each row on its own, lanes along the head dimension, so that K and V pass
// once at the speed of the memory. Also serves where the scores themselves are an output.
#pragma once
#include "kernels/attention/problem.h"
#include "kernels/attention/tile.h"

namespace fi::FI_ISA {

class SingleRow {
 public:
  void start(const KeyHead& head, float* scratch, int64_t row, int64_t lane) {
    const AttentionStep& p = head.p;
    const AttentionScratch at = attention_layout(p);
    head_ = &head;
    row_ = row;
    begin_ = head.begin(row);
    end_ = head.end(row);
    query_ = scratch + at.query + lane * ((p.d + 15) / 16 * 16);
    scores_ = scratch + at.scores + lane * kAttentionKeys;
    sums_ = scratch + at.output + lane * ((p.dv + 15) / 16 * 16);
    all_ = head.scores ? head.scores + row * p.sk : nullptr;
    const float* q = head.query(row);
    const VF f = set1(p.softcap > 0 ? p.scale / p.softcap : p.scale);
    int64_t i = 0;
    for (; i + VF::W <= p.d; i += VF::W) store(query_ + i, load(q + i) * f);
    if (i < p.d) store(query_ + i, load(q + i, static_cast<int>(p.d - i)) * f);
    for (int64_t j = 0; j < p.dv; j += VF::W) store(sums_ + j, zero());
  }

  // Keys [k0, k1), a block of kAttentionKeys from key 0 on.
  void block(int64_t k0, int64_t k1) {
    if (!all_ && (k0 >= end_ || k1 <= begin_)) return;
    const int64_t n = k1 - k0;
    if (p().k.e == 1)
      dot_rows(k0, n);
    else
      sum_columns(k0, n);
    stage(AttentionScores::raw, k0, n, p().softcap > 0 ? p().softcap : 1.f);
    if (p().softcap > 0) cap_scores(scores_, n, p().softcap);
    stage(AttentionScores::capped, k0, n, 1.f);
    add_mask(k0, n);
    stage(AttentionScores::masked, k0, n, 1.f);
    stage(AttentionScores::softmax, k0, n, 1.f);
    soften(n);
    add_values(k0, n);
  }

  void finish() {
    float inverse = 1.f / sum_;
    if ((p().zero_empty || p().sk == 0) && sum_ == 0.f) inverse = 0.f;
    float* y = head_->output(row_);
    for (int64_t i = 0; i < p().dv; ++i) y[i] = sums_[i] * inverse;
    if (p().scores == AttentionScores::softmax) {
      const float shift = safe(maximum_);
      for (int64_t k = 0; k < p().sk; k += VF::W) {
        const int n = p().sk - k < VF::W ? static_cast<int>(p().sk - k) : VF::W;
        store(all_ + k, exp(load(all_ + k, n) - set1(shift)) * set1(inverse), n);
      }
    }
  }

 private:
  // scores = K·q, K's rows contiguous: four keys at a time share the loads of q.
  void dot_rows(int64_t k0, int64_t n) {
    int64_t k = 0;
    for (; k + 4 <= n; k += 4) dot<4>(k0, k);
    for (; k < n; ++k) dot<1>(k0, k);
  }
  template <int N>
  void dot(int64_t k0, int64_t k) {
    const float* x[N];
    VF acc[N][2];
    FI_UNROLL for (int i = 0; i < N; ++i) {
      x[i] = head_->k + (k0 + k + i) * p().k.s;
      acc[i][0] = acc[i][1] = zero();
    }
    int64_t e = 0;
    for (; e + 2 * VF::W <= p().d; e += 2 * VF::W) {
      const VF a = load(query_ + e), b = load(query_ + e + VF::W);
      FI_UNROLL for (int i = 0; i < N; ++i) {
        acc[i][0] = fma(a, load(x[i] + e), acc[i][0]);
        acc[i][1] = fma(b, load(x[i] + e + VF::W), acc[i][1]);
      }
    }
    for (; e < p().d; e += VF::W) {
      const int m = p().d - e < VF::W ? static_cast<int>(p().d - e) : VF::W;
      FI_UNROLL for (int i = 0; i < N; ++i) acc[i][0] = fma(load(query_ + e, m), load(x[i] + e, m), acc[i][0]);
    }
    FI_UNROLL for (int i = 0; i < N; ++i) scores_[k + i] = reduce_add(acc[i][0] + acc[i][1]);
  }
  // The same where an element's keys are contiguous (K transposed): lanes are keys.
  void sum_columns(int64_t k0, int64_t n) {
    if (p().k.s != 1) {
      for (int64_t k = 0; k < n; ++k) {
        float s = 0;
        for (int64_t e = 0; e < p().d; ++e) s += query_[e] * head_->k[(k0 + k) * p().k.s + e * p().k.e];
        scores_[k] = s;
      }
      return;
    }
    product({query_, 0, 1, head_->k + k0, p().k.e, p().d}, StoreOutput<float>{scores_, 0, nullptr, &kOne, &scores_}, 1,
            n);
  }

  void stage(AttentionScores which, int64_t k0, int64_t n, float factor) {
    if (p().scores != which) return;
    for (int64_t k = 0; k < n; ++k) all_[k0 + k] = scores_[k] * factor;
  }

  void add_mask(int64_t k0, int64_t n) {
    const int64_t at = head_->mask_start(row_) + k0 * p().mask_at.e;
    if (p().mask == AttentionMask::added) {
      const float* m = static_cast<const float*>(head_->mask) + at;
      for (int64_t k = 0; k < n; ++k) scores_[k] += m[k * p().mask_at.e];
    } else if (p().mask == AttentionMask::kept) {
      const uint8_t* m = static_cast<const uint8_t*>(head_->mask) + at;
      for (int64_t k = 0; k < n; ++k) scores_[k] = m[k * p().mask_at.e] ? scores_[k] : -__builtin_inff();
    }
    for (int64_t k = 0; k < n && k0 + k < begin_; ++k) scores_[k] = -__builtin_inff();
    for (int64_t k = end_ > k0 ? end_ - k0 : 0; k < n; ++k) scores_[k] = -__builtin_inff();
  }

  void soften(int64_t n) {
    VF top = set1(maximum_);
    int64_t k = 0;
    for (; k + VF::W <= n; k += VF::W) top = max(load(scores_ + k), top);
    float highest = reduce_max(top);
    for (; k < n; ++k) highest = scores_[k] > highest ? scores_[k] : highest;
    const VF shift = set1(safe(highest));
    VF total = zero();
    for (k = 0; k < n; k += VF::W) {
      const int m = n - k < VF::W ? static_cast<int>(n - k) : VF::W;
      const VF e = select(first_n(m), exp(load(scores_ + k, m) - shift), zero());
      store(scores_ + k, e, m);
      total = total + e;
    }
    alignas(64) float factor[VF::W];
    store(factor, exp(set1(maximum_) - shift));
    keep_ = factor[0];
    sum_ = sum_ * keep_ + reduce_add(total);
    maximum_ = highest;
  }

  // sums = sums·keep + scores·V. The same chain for every column, whatever the number of vectors at a time.
  void add_values(int64_t k0, int64_t n) {
    int64_t i = 0;
    for (; i + 8 * VF::W <= p().dv; i += 8 * VF::W) add_columns<8>(k0, n, i);
    if (i + 4 * VF::W <= p().dv) add_columns<4>(k0, n, i), i += 4 * VF::W;
    for (; i < p().dv; i += VF::W) add_columns<1>(k0, n, i);
  }
  template <int NV>
  void add_columns(int64_t k0, int64_t n, int64_t i) {
    const int tail = p().dv - i < VF::W ? static_cast<int>(p().dv - i) : VF::W;
    const float* v = head_->v + k0 * p().v.s + i;
    VF acc[NV];
    FI_UNROLL for (int j = 0; j < NV; ++j) acc[j] = load(sums_ + i + j * VF::W) * set1(keep_);
    for (int64_t k = 0; k < n; ++k, v += p().v.s) {
      const VF f = set1(scores_[k]);
      FI_UNROLL for (int j = 0; j < NV; ++j) acc[j] = fma(f, load_at<NV>(v, j, tail), acc[j]);
    }
    FI_UNROLL for (int j = 0; j < NV; ++j) store(sums_ + i + j * VF::W, acc[j]);
  }

  const AttentionStep& p() const { return head_->p; }

  static constexpr float kOne = 1.f;
  const KeyHead* head_;
  int64_t row_, begin_, end_;
  float *query_, *scores_, *sums_, *all_;
  float maximum_ = -__builtin_inff(), sum_ = 0, keep_ = 0;
};

}  // namespace fi::FI_ISA
