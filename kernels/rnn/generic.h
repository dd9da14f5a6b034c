// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "kernels/rnn/rnn.h"
#include "kernels/simd/math.h"

#define FI_RNN_UNROLL _Pragma("GCC unroll 8")

namespace fi::FI_ISA {

FI_INLINE VF rnn_activate(const RnnActivation& a, VF x) {
  const VF alpha = set1(a.alpha), beta = set1(a.beta), none = zero(), one = set1(1.f);
  switch (a.function) {
    case RnnFunction::sigmoid:
      return sigmoid(x);
    case RnnFunction::tanh:
      return tanh(x);
    case RnnFunction::relu:
      return max(none, x);
    case RnnFunction::leaky_relu:
      return select(x < none, alpha * x, x);
    case RnnFunction::thresholded_relu:
      return select(x > alpha, x, none);
    case RnnFunction::scaled_tanh:
      return alpha * tanh(beta * x);
    case RnnFunction::hard_sigmoid:
      return clamp(fma(alpha, x, beta), none, one);
    case RnnFunction::elu:
      return select(x < none, alpha * expm1(x), x);
    case RnnFunction::softsign:
      return x / (one + abs(x));
    case RnnFunction::softplus:
      return softplus(x);
    case RnnFunction::affine:
      return fma(alpha, x, beta);
  }
  return x;
}

// The vector of gate `g` at unit u of row r: the input's share plus the recurrent one, clipped.
FI_INLINE VF rnn_clip(const RnnProblem& q, VF v) { return q.clip > 0 ? clamp(v, set1(-q.clip), set1(q.clip)) : v; }

FI_INLINE void lstm_row(const RnnProblem& q, const RnnActivation* act, const RnnSlice& s, int64_t r, int u) {
  const float* x = s.x[r] + u;
  const float* rec = s.recurrent + r * 4 * kUnits + u;
  float* c = s.c + r * s.row + u;
  const VF old = load(c);
  VF gate[4];  // i, o, f, c~
  for (int g = 0; g < 4; ++g) gate[g] = load(x + g * kUnits) + load(rec + g * kUnits);
  if (s.peephole[0]) gate[0] = fma(load(s.peephole[0] + u), old, gate[0]);
  if (s.peephole[2]) gate[2] = fma(load(s.peephole[2] + u), old, gate[2]);
  const VF in = rnn_activate(act[0], rnn_clip(q, gate[0]));
  const VF forget = q.input_forget ? set1(1.f) - in : rnn_activate(act[0], rnn_clip(q, gate[2]));
  const VF next = fma(forget, old, in * rnn_activate(act[1], rnn_clip(q, gate[3])));
  if (s.peephole[1]) gate[1] = fma(load(s.peephole[1] + u), next, gate[1]);
  store(c, next);
  store(s.h_next + r * s.row + u, rnn_activate(act[0], rnn_clip(q, gate[1])) * rnn_activate(act[2], next));
}

FI_INLINE void gru_row(const RnnProblem& q, const RnnActivation* act, const RnnSlice& s, int64_t r, int u) {
  const float* x = s.x[r] + u;
  const float* rec = s.recurrent + r * 3 * kUnits + u;
  const VF old = load(s.h + r * s.row + u);
  float* next = s.h_next + r * s.row + u;
  VF z;
  if (s.phase == 0) {
    z = rnn_activate(act[0], rnn_clip(q, load(x) + load(rec)));
    const VF reset = rnn_activate(act[0], rnn_clip(q, load(x + kUnits) + load(rec + kUnits)));
    if (!q.linear_before_reset) {
      store(next, z);  // waits for phase 1
      store(s.reset_h + r * s.row + u, reset * old);
      return;
    }
    VF linear = load(rec + 2 * kUnits);
    if (s.reset_bias) linear = linear + load(s.reset_bias + u);
    const VF candidate = rnn_activate(act[1], rnn_clip(q, fma(reset, linear, load(x + 2 * kUnits))));
    store(next, fma(z, old - candidate, candidate));
    return;
  }
  z = load(next);
  const VF candidate = rnn_activate(act[1], rnn_clip(q, load(x + 2 * kUnits) + load(rec + 2 * kUnits)));
  store(next, fma(z, old - candidate, candidate));
}

// NV vectors from column n of NS slices. Weights come from L2 at 47 bytes per cycle at best: as many chains as keep up
// with that, and no more, as two streams of 32 KiB slices are slower than one (122 against 177 GB/s).
template <int NV, int NS>
static void rnn_sums_block(const RnnSums& s, int64_t slice, int64_t n) {
  const int64_t stride = s.k * s.columns;
  const float* w = s.weights + slice * stride + n;
  VF acc[NS][NV];
  FI_RNN_UNROLL for (int i = 0; i < NS; ++i) { FI_RNN_UNROLL for (int j = 0; j < NV; ++j) acc[i][j] = zero(); }
  for (int64_t k = 0; k < s.k; ++k, w += s.columns) {
    const VF h = set1(s.h[k]);
    FI_RNN_UNROLL for (int i = 0; i < NS; ++i) {
      FI_RNN_UNROLL for (int j = 0; j < NV; ++j) acc[i][j] = fma(h, load(w + i * stride + j * VF::W), acc[i][j]);
    }
  }
  float* out = s.out + slice * s.columns + n;
  FI_RNN_UNROLL for (int i = 0; i < NS; ++i) {
    FI_RNN_UNROLL for (int j = 0; j < NV; ++j) store(out + i * s.columns + j * VF::W, acc[i][j]);
  }
}

template <int NV>
static void rnn_sums_columns(const RnnSums& s, int64_t n) {
  constexpr int NS = VF::W == 16 ? (NV > 2 ? 1 : 4 / NV) : 8 / NV;
  const int64_t whole = s.slices / NS;
  for (int64_t i = 0; i < whole; ++i) rnn_sums_block<NV, NS>(s, (s.backwards ? whole - 1 - i : i) * NS, n);
  for (int64_t i = whole * NS; i < s.slices; ++i) rnn_sums_block<NV, 1>(s, i, n);
}

FI_INLINE void rnn_sums(const RnnSums& s) {
  constexpr int kGate = kUnits / VF::W;  // vectors per gate
  int64_t n = s.from;
  for (; s.to - n >= 8 * VF::W; n += 8 * VF::W) rnn_sums_columns<8>(s, n);
  for (; s.to - n >= 4 * VF::W; n += 4 * VF::W) rnn_sums_columns<4>(s, n);
  if (s.to - n == 3 * VF::W) return rnn_sums_columns<3>(s, n);
  if (s.to - n == 2 * VF::W) return rnn_sums_columns<2>(s, n);
  if constexpr (kGate == 1)
    if (s.to > n) rnn_sums_columns<1>(s, n);
}

FI_INLINE void rnn_slice(const RnnProblem& q, int direction, const RnnSlice& s) {
  const RnnActivation* act = q.activation[direction];
  for (int64_t r = 0; r < s.rows; ++r)
    for (int u = 0; u < kUnits; u += VF::W) switch (q.kind) {
        case RnnKind::lstm:
          lstm_row(q, act, s, r, u);
          break;
        case RnnKind::gru:
          gru_row(q, act, s, r, u);
          break;
        case RnnKind::rnn:
          store(s.h_next + r * s.row + u,
                rnn_activate(act[0], rnn_clip(q, load(s.x[r] + u) + load(s.recurrent + r * kUnits + u))));
      }
}

}  // namespace fi::FI_ISA
