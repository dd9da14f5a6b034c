// SPDX-License-Identifier: Apache-2.0
#include "kernels/rnn/quantized.h"

#include <algorithm>
#include <cstring>

#include "kernels/gemm/quantize.h"

namespace fi {
namespace {

int64_t padded(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// Offsets in bytes of one direction's scratch.
struct Layout {
  int64_t bytes, sums, h, next, c, dense, column_scale, total;
  explicit Layout(const QuantizedLstm& q) {
    const RnnProblem& p = q.cell;
    const int64_t columns = rnn_columns(p.kind, p.hidden), state = padded(p.batch * rnn_slices(p.hidden) * kUnits * 4);
    const int64_t rows = p.steps * p.batch;
    bytes = 0;
    sums = bytes + padded(std::max(rows * q.depth, p.batch * p.hidden));
    h = sums + padded((rows + p.batch) * columns * 4);
    next = h + state;
    c = next + state;
    dense = c + state;
    column_scale = dense + padded(p.batch * p.hidden * 4);
    total = column_scale + padded(columns * 4);
  }
};

class Direction {
 public:
  Direction(const QuantizedLstm& q, void* const* args, int d)
      : q_(q),
        p_(q.cell),
        d_(d),
        at_(q),
        w_(q.weights[d]),
        columns_(rnn_columns(p_.kind, p_.hidden)),
        slices_(rnn_slices(p_.hidden)),
        width_(slices_ * kUnits) {
    const auto in = [&](int i) { return static_cast<const float*>(args[i]); };
    const auto out = [&](int i) { return static_cast<float*>(args[i]); };
    x_ = in(0), h0_ = in(2), c0_ = in(3);
    lengths_ = static_cast<const int32_t*>(args[1]);
    y_ = out(4), yh_ = out(5), yc_ = out(6);
    memory_ = static_cast<char*>(args[7]) + d * at_.total;
  }

  Status run() {
    steps_ = lengths_ ? 0 : p_.steps;
    for (int64_t b = 0; lengths_ && b < p_.batch; ++b) {
      if (lengths_[b] < 0 || lengths_[b] > p_.steps) return Status::bad_value;
      steps_ = std::max<int64_t>(steps_, lengths_[b]);
    }
    if (y_) clear(y_ + d_ * p_.y_direction, p_.steps, p_.y_step, p_.y_batch);
    start(floats(at_.h), h0_);
    start(floats(at_.next), nullptr);
    start(floats(at_.c), c0_);
    multiply(x_, steps_ * p_.batch, q_.depth, w_.w, w_.w_scale, w_.w_zero, w_.bias, floats(at_.sums));
    for (int64_t s = 0; s < steps_; ++s) step(s);
    if (yh_) save(yh_ + d_ * p_.state_direction, floats(at_.h));
    if (yc_) save(yc_ + d_ * p_.state_direction, floats(at_.c));
    return Status::ok;
  }

 private:
  float* floats(int64_t offset) { return reinterpret_cast<float*>(memory_ + offset); }
  int64_t length(int64_t b) const { return lengths_ ? lengths_[b] : p_.steps; }

  // Y = quantised(A) · B + bias, A: [m, k].
  void multiply(const float* a, int64_t m, int64_t k, const void* packed, const float* scale, const int32_t* zero,
                const float* bias, float* y) {
    if (m == 0) return;
    float range[2], a_scale, one = 1.f;
    uint8_t a_zero = 0;
    const RangeStep find{m * k};
    void* const find_args[] = {const_cast<float*>(a), range};
    q_.quantize->range(&find, find_args, 0, 1);
    const DynamicQuantizeStep quantize{m * k, 1};
    void* const quantize_args[] = {const_cast<float*>(a), range, memory_ + at_.bytes, &a_scale, &a_zero};
    q_.quantize->quantize(&quantize, quantize_args, 0, 1);
    float* column_scale = floats(at_.column_scale);
    for (int64_t n = 0; n < columns_; ++n) column_scale[n] = a_scale * scale[n];
    int32_t za = a_zero;
    GemmU8S8Step g;
    g.kernel = q_.gemm;
    g.m = m;
    g.n = columns_;
    g.k = k;
    g.output = QuantizedOutput::f32;
    void* const args[] = {memory_ + at_.bytes,
                          const_cast<void*>(packed),
                          &za,
                          const_cast<int32_t*>(zero),
                          nullptr,
                          &one,
                          column_scale,
                          const_cast<float*>(bias),
                          y,
                          nullptr};
    gemm_u8s8_step(&g, args, 0, 1);
  }

  void step(int64_t s) {
    float *h = floats(at_.h), *next = floats(at_.next), *dense = floats(at_.dense);
    float* recurrent = floats(at_.sums) + p_.steps * p_.batch * columns_;
    for (int64_t b = 0; b < p_.batch; ++b)
      std::memcpy(dense + b * p_.hidden, h + b * width_, static_cast<size_t>(p_.hidden) * sizeof(float));
    multiply(dense, p_.batch, p_.hidden, w_.r, w_.r_scale, w_.r_zero, nullptr, recurrent);
    for (int64_t b = 0; b < p_.batch; ++b) {
      if (s >= length(b)) continue;
      const int64_t t = p_.reverse[d_] ? length(b) - 1 - s : s;
      const float* x = floats(at_.sums) + (t * p_.batch + b) * columns_;
      for (int64_t i = 0; i < slices_; ++i) slice(i, b, x, recurrent + b * columns_, h, next);
      std::memcpy(h + b * width_, next + b * width_, static_cast<size_t>(width_) * sizeof(float));
      if (y_)
        std::memcpy(y_ + t * p_.y_step + d_ * p_.y_direction + b * p_.y_batch, h + b * width_,
                    static_cast<size_t>(p_.hidden) * sizeof(float));
    }
  }

  void slice(int64_t i, int64_t b, const float* x, const float* recurrent, float* h, float* next) {
    const float* gates = x + i * rnn_gates(p_.kind) * kUnits;
    const int64_t at = b * width_ + i * kUnits;
    RnnSlice s{};
    s.rows = 1;
    s.x = &gates;
    s.recurrent = recurrent + i * rnn_gates(p_.kind) * kUnits;
    for (int p = 0; p < 3; ++p) s.peephole[p] = w_.peephole ? w_.peephole + p * width_ + i * kUnits : nullptr;
    s.h = h + at, s.h_next = next + at, s.c = floats(at_.c) + at;
    s.row = width_;
    p_.cell->run(p_, d_, s);
  }

  void start(float* to, const float* from) const {
    std::memset(to, 0, static_cast<size_t>(p_.batch * width_) * sizeof(float));
    for (int64_t b = 0; from && b < p_.batch; ++b)
      std::memcpy(to + b * width_, from + d_ * p_.state_direction + b * p_.state_batch,
                  static_cast<size_t>(p_.hidden) * sizeof(float));
  }
  void save(float* to, const float* from) const {
    for (int64_t b = 0; b < p_.batch; ++b)
      std::memcpy(to + b * p_.state_batch, from + b * width_, static_cast<size_t>(p_.hidden) * sizeof(float));
  }
  void clear(float* to, int64_t steps, int64_t step, int64_t batch) const {
    for (int64_t t = 0; t < steps; ++t)
      for (int64_t b = 0; b < p_.batch; ++b)
        std::memset(to + t * step + b * batch, 0, static_cast<size_t>(p_.hidden) * sizeof(float));
  }

  const QuantizedLstm& q_;
  const RnnProblem& p_;
  int d_;
  Layout at_;
  const QuantizedLstmWeights& w_;
  int64_t columns_, slices_, width_, steps_ = 0;
  const float *x_, *h0_, *c0_;
  const int32_t* lengths_;
  float *y_, *yh_, *yc_;
  char* memory_;
};

}  // namespace

size_t quantized_lstm_scratch(const QuantizedLstm& q) {
  return static_cast<size_t>(q.cell.directions * Layout(q).total);
}

Status quantized_lstm_step(const void* params, void* const* args, int part, int parts) {
  const auto& q = *static_cast<const QuantizedLstm*>(params);
  const Range directions = part_of(q.cell.directions, part, parts);
  for (int64_t d = directions.begin; d < directions.end; ++d)
    if (const Status s = Direction(q, args, static_cast<int>(d)).run(); s != Status::ok) return s;
  return Status::ok;
}

}  // namespace fi
