// SPDX-License-Identifier: Apache-2.0
#include "kernels/rnn/rnn.h"

#include <algorithm>
#include <cstring>

namespace fi {

#define FI_KERNEL(isa)                                        \
  namespace isa {                                             \
  void rnn_cell_f32(const RnnProblem&, int, const RnnSlice&); \
  }
#include "kernels/rnn/kernels.inc"
#undef FI_KERNEL

const RnnCellKernel& rnn_cell(Isa isa) {
  static const RnnCellKernel rows[] = {
#define FI_KERNEL(isa) {"rnn_cell_f32_" #isa, Isa::isa, &isa::rnn_cell_f32},
#include "kernels/rnn/kernels.inc"
#undef FI_KERNEL
  };
  const RnnCellKernel* row = rows;
  while (row->isa > isa) ++row;  // the last row is the baseline, which every machine has
  return *row;
}

namespace {

// Calls f(row in slice order, row in ONNX's order) for every gate and unit.
template <class F>
void each_row(RnnKind kind, int64_t hidden, F f) {
  const int gates = rnn_gates(kind);
  for (int g = 0; g < gates; ++g)
    for (int64_t u = 0; u < hidden; ++u) f((u / kUnits * gates + g) * kUnits + u % kUnits, g * hidden + u);
}

// The state of one part: a direction and a range of the batch.
class Recurrence {
 public:
  Recurrence(const RnnProblem& q, void* const* args, int part)
      : q_(q),
        direction_(static_cast<int>(part / q.chunks)),
        gates_(rnn_gates(q.kind)),
        slices_(rnn_slices(q.hidden)),
        width_(slices_ * kUnits),
        columns_(rnn_columns(q.kind, q.hidden)),
        rows_(part_of(q.batch, static_cast<int>(part % q.chunks), static_cast<int>(q.chunks))) {
    const auto at = [&](int i) { return static_cast<const float*>(args[i]); };
    x_ = at(0) + direction_ * q.steps * q.batch * columns_;
    weights_ = at(1) + direction_ * slices_ * q.hidden * gates_ * kUnits;
    reset_bias_ = at(2) ? at(2) + direction_ * width_ : nullptr;
    peephole_ = at(3) ? at(3) + direction_ * 3 * width_ : nullptr;
    h0_ = at(4), c0_ = at(5);
    lengths_ = static_cast<const int32_t*>(args[6]);
    y_ = static_cast<float*>(args[7]), yh_ = static_cast<float*>(args[8]), yc_ = static_cast<float*>(args[9]);
    float* memory = static_cast<float*>(args[10]) + part * floats(q);
    const int64_t most = (q.batch + q.chunks - 1) / q.chunks;
    for (float** p : {&h_[0], &h_[1], &c_, &reset_h_}) {
      *p = memory;
      memory += most * width_;
    }
    block_ = memory;
    memory += most * gates_ * kUnits;
    a_ = reinterpret_cast<const float**>(memory);
    x_rows_ = a_ + most;
  }

  static int64_t floats(const RnnProblem& q) {
    const int64_t most = (q.batch + q.chunks - 1) / q.chunks, width = rnn_slices(q.hidden) * kUnits;
    return (most * (4 * width + rnn_gates(q.kind) * kUnits + 2 * 2) + 31) / 16 * 16;
  }

  Status run() {
    if (!lengths_) return run_rows(rows_.begin, rows_.end, q_.steps);
    // Samples of different lengths: each by itself, which the other order of time (reverse) needs anyway.
    for (int64_t b = rows_.begin; b < rows_.end; ++b) {
      if (lengths_[b] < 0 || lengths_[b] > q_.steps) return Status::bad_value;
      run_rows(b, b + 1, lengths_[b]);
    }
    return Status::ok;
  }

 private:
  Status run_rows(int64_t begin, int64_t end, int64_t steps) {
    const int64_t n = end - begin;
    start(h_[0], h0_, begin, n);
    start(h_[1], nullptr, begin, n);
    start(c_, c0_, begin, n);
    int now = 0;
    for (int64_t s = 0; s < steps; ++s, now ^= 1) {
      const int64_t t = q_.reverse[direction_] ? steps - 1 - s : s;
      step(h_[now], h_[now ^ 1], t, begin, n);
      if (y_) save(y_ + t * q_.y_step + direction_ * q_.y_direction, q_.y_batch, h_[now ^ 1], begin, n);
    }
    if (y_)
      for (int64_t t = steps; t < q_.steps; ++t)
        for (int64_t b = begin; b < end; ++b)
          std::memset(y_ + t * q_.y_step + direction_ * q_.y_direction + b * q_.y_batch, 0, q_.hidden * sizeof(float));
    if (yh_) save(yh_ + direction_ * q_.state_direction, q_.state_batch, h_[now], begin, n);
    if (yc_) save(yc_ + direction_ * q_.state_direction, q_.state_batch, c_, begin, n);
    return Status::ok;
  }

  void start(float* to, const float* from, int64_t begin, int64_t n) const {
    std::memset(to, 0, static_cast<size_t>(n * width_) * sizeof(float));
    for (int64_t r = 0; from && r < n; ++r)
      std::memcpy(to + r * width_, from + direction_ * q_.state_direction + (begin + r) * q_.state_batch,
                  static_cast<size_t>(q_.hidden) * sizeof(float));
  }

  void save(float* to, int64_t stride, const float* from, int64_t begin, int64_t n) const {
    for (int64_t r = 0; r < n; ++r)
      std::memcpy(to + (begin + r) * stride, from + r * width_, static_cast<size_t>(q_.hidden) * sizeof(float));
  }

  void step(float* h, float* next, int64_t t, int64_t begin, int64_t n) {
    const bool two_phases = q_.kind == RnnKind::gru && !q_.linear_before_reset;
    for (int phase = 0; phase < (two_phases ? 2 : 1); ++phase) {
      const float* operand = phase ? reset_h_ : h;
      for (int64_t r = 0; r < n; ++r) a_[r] = operand + r * width_;
      for (int64_t i = 0; i < slices_; ++i) slice(i, phase, two_phases, h, next, t, begin, n);
    }
  }

  void slice(int64_t i, int phase, bool two_phases, float* h, float* next, int64_t t, int64_t begin, int64_t n) {
    const int64_t columns = gates_ * kUnits;
    // Of the three gates of a GRU, phase 0 needs the first two and phase 1 the last.
    const int64_t first = phase ? 2 * kUnits : 0, last = two_phases && !phase ? 2 * kUnits : columns;
    GemmTile tile;
    tile.a = a_;
    tile.k = q_.hidden;
    tile.ldb = tile.ldc = columns;
    tile.rows = n;
    for (int64_t from = first; from < last; from += q_.gemm->nr) {
      tile.b = weights_ + i * q_.hidden * columns + from;
      tile.c = block_ + from;
      tile.cols = std::min<int64_t>(q_.gemm->nr, last - from);
      q_.gemm->run(tile);
    }
    for (int64_t r = 0; r < n; ++r)
      x_rows_[r] = x_ + (t * q_.x_step + (begin + r) * q_.x_batch) * columns_ + i * columns;
    RnnSlice s{};
    s.rows = n;
    s.x = x_rows_;
    s.recurrent = block_;
    s.reset_bias = reset_bias_ ? reset_bias_ + i * kUnits : nullptr;
    for (int p = 0; p < 3; ++p) s.peephole[p] = peephole_ ? peephole_ + p * width_ + i * kUnits : nullptr;
    s.h = h + i * kUnits, s.h_next = next + i * kUnits, s.c = c_ + i * kUnits, s.reset_h = reset_h_ + i * kUnits;
    s.row = width_;
    s.phase = phase;
    q_.cell->run(q_, direction_, s);
  }

  const RnnProblem& q_;
  int direction_, gates_;
  int64_t slices_, width_, columns_;
  Range rows_;
  const float *x_, *weights_, *reset_bias_, *peephole_, *h0_, *c0_;
  const int32_t* lengths_;
  float *y_, *yh_, *yc_, *h_[2], *c_, *reset_h_, *block_;
  const float **a_, **x_rows_;
};

}  // namespace

void rnn_permute(RnnKind kind, int64_t hidden, int64_t depth, const float* dense, float* permuted) {
  std::memset(permuted, 0, static_cast<size_t>(rnn_columns(kind, hidden) * depth) * sizeof(float));
  each_row(kind, hidden, [&](int64_t to, int64_t from) {
    std::memcpy(permuted + to * depth, dense + from * depth, static_cast<size_t>(depth) * sizeof(float));
  });
}

void rnn_restore(RnnKind kind, int64_t hidden, int64_t depth, const float* permuted, float* dense) {
  each_row(kind, hidden, [&](int64_t at, int64_t to) {
    std::memcpy(dense + to * depth, permuted + at * depth, static_cast<size_t>(depth) * sizeof(float));
  });
}

void rnn_pack_recurrent(RnnKind kind, int64_t hidden, const float* dense, float* packed) {
  const int64_t columns = rnn_gates(kind) * kUnits;
  std::memset(packed, 0, static_cast<size_t>(rnn_columns(kind, hidden) * hidden) * sizeof(float));
  each_row(kind, hidden, [&](int64_t at, int64_t from) {
    float* out = packed + at / columns * hidden * columns + at % columns;
    for (int64_t k = 0; k < hidden; ++k) out[k * columns] = dense[from * hidden + k];
  });
}

void rnn_unpack_recurrent(RnnKind kind, int64_t hidden, const float* packed, float* dense) {
  const int64_t columns = rnn_gates(kind) * kUnits;
  each_row(kind, hidden, [&](int64_t at, int64_t to) {
    const float* in = packed + at / columns * hidden * columns + at % columns;
    for (int64_t k = 0; k < hidden; ++k) dense[to * hidden + k] = in[k * columns];
  });
}

size_t rnn_scratch(const RnnProblem& q) {
  return static_cast<size_t>(q.directions * q.chunks * Recurrence::floats(q)) * sizeof(float);
}

Status rnn_step(const void* params, void* const* args, int part, int parts) {
  const auto& q = *static_cast<const RnnProblem*>(params);
  // `parts` is directions * chunks; when the executor runs fewer calls, each takes several.
  const Range share = part_of(q.directions * q.chunks, part, parts);
  for (int64_t p = share.begin; p < share.end; ++p)
    if (const Status s = Recurrence(q, args, static_cast<int>(p)).run(); s != Status::ok) return s;
  return Status::ok;
}

}  // namespace fi
