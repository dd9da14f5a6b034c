// SPDX-License-Identifier: Apache-2.0
#include "kernels/rnn/rnn.h"

#include <algorithm>
#include <cstring>

#include "kernels/rnn/share.h"

namespace fi {

#define FI_KERNEL(isa)                                        \
  namespace isa {                                             \
  void rnn_cell_f32(const RnnProblem&, int, const RnnSlice&); \
  void rnn_sums_f32(const RnnSums&);                          \
  }
#include "kernels/rnn/kernels.inc"
#undef FI_KERNEL

const RnnCellKernel& rnn_cell(Isa isa) {
  static const RnnCellKernel rows[] = {
#define FI_KERNEL(isa) {"rnn_cell_f32_" #isa, Isa::isa, &isa::rnn_cell_f32, &isa::rnn_sums_f32},
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

// Scratch, in floats: [part][own], [directions * chunks][shared], turns. Rounded to 128 bytes: no line has two owners.
struct RnnLayout {
  int64_t rows, width, turns, shared, own;
};
RnnLayout layout_of(const RnnProblem& q) {
  const auto rounded = [](int64_t floats) { return (floats + 31) / 32 * 32; };
  RnnLayout l;
  l.rows = (q.batch + q.chunks - 1) / q.chunks;
  l.width = rnn_slices(q.hidden) * kUnits;
  l.turns = q.splits > 1 ? q.splits * static_cast<int64_t>(sizeof(RnnTurn) / sizeof(float)) : 0;
  l.shared = l.turns + rounded(4 * l.rows * l.width);
  l.own = rounded(std::max(l.rows * rnn_gates(q.kind) * kUnits, l.width * rnn_gates(q.kind)) + 4 * l.rows);
  return l;
}

// The state of one part: a direction, a range of the batch, a range of the hidden units.
class Recurrence {
 public:
  Recurrence(const RnnProblem& q, void* const* args, int part)
      : q_(q),
        direction_(static_cast<int>(part / (q.chunks * q.splits))),
        gates_(rnn_gates(q.kind)),
        slices_(rnn_slices(q.hidden)),
        width_(slices_ * kUnits),
        columns_(rnn_columns(q.kind, q.hidden)),
        rows_(part_of(q.batch, static_cast<int>(part / q.splits % q.chunks), static_cast<int>(q.chunks))),
        share_(turns_of(q, args, part), static_cast<int>(q.splits), static_cast<int>(part % q.splits)) {
    const auto at = [&](int i) { return static_cast<const float*>(args[i]); };
    x_ = at(0) + direction_ * q.steps * q.batch * columns_;
    weights_ = at(1) + direction_ * slices_ * q.hidden * gates_ * kUnits;
    reset_bias_ = at(2) ? at(2) + direction_ * width_ : nullptr;
    peephole_ = at(3) ? at(3) + direction_ * 3 * width_ : nullptr;
    h0_ = at(4), c0_ = at(5);
    lengths_ = static_cast<const int32_t*>(args[6]);
    y_ = static_cast<float*>(args[7]), yh_ = static_cast<float*>(args[8]), yc_ = static_cast<float*>(args[9]);
    const RnnLayout l = layout_of(q);
    float* memory = turns_of(q, args, part) + l.turns;
    for (float** p : {&h_[0], &h_[1], &c_, &reset_h_}) {
      *p = memory;
      memory += l.rows * width_;
    }
    a_ = reinterpret_cast<const float**>(static_cast<float*>(args[10]) + part * l.own);
    x_rows_ = a_ + l.rows;
    block_ = reinterpret_cast<float*>(x_rows_ + l.rows);
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
  struct Units {
    int64_t first, last;  // slices
    int64_t from, to;     // units, those of the padding left out
  };

  static float* turns_of(const RnnProblem& q, void* const* args, int part) {
    const RnnLayout l = layout_of(q);
    return static_cast<float*>(args[10]) + q.directions * q.chunks * q.splits * l.own + part / q.splits * l.shared;
  }

  // Calls f(units) for every range of the hidden units, on some thread, and returns when all are done.
  template <class F>
  void stage(F f) {
    share_.stage([&](int range) {
      const Range r = part_of(slices_, range, static_cast<int>(q_.splits));
      f(Units{r.begin, r.end, std::min(r.begin * kUnits, q_.hidden), std::min(r.end * kUnits, q_.hidden)});
    });
  }

  Status run_rows(int64_t begin, int64_t end, int64_t steps) {
    const int64_t n = end - begin;
    stage([&](const Units& u) {
      start(h_[0], h0_, begin, n, u);
      start(h_[1], nullptr, begin, n, u);
      start(c_, c0_, begin, n, u);
    });
    int now = 0;
    for (int64_t s = 0; s < steps; ++s, now ^= 1) {
      const int64_t t = q_.reverse[direction_] ? steps - 1 - s : s;
      step(h_[now], h_[now ^ 1], t, begin, n);
    }
    stage([&](const Units& u) {
      for (int64_t t = steps; y_ && t < q_.steps; ++t)
        for (int64_t b = begin; b < end; ++b)
          std::memset(y_ + t * q_.y_step + direction_ * q_.y_direction + b * q_.y_batch + u.from, 0,
                      static_cast<size_t>(u.to - u.from) * sizeof(float));
      if (yh_) save(yh_ + direction_ * q_.state_direction, q_.state_batch, h_[now], begin, n, u);
      if (yc_) save(yc_ + direction_ * q_.state_direction, q_.state_batch, c_, begin, n, u);
    });
    return Status::ok;
  }

  void start(float* to, const float* from, int64_t begin, int64_t n, const Units& u) const {
    for (int64_t r = 0; r < n; ++r) {
      std::memset(to + r * width_ + u.first * kUnits, 0,
                  static_cast<size_t>((u.last - u.first) * kUnits) * sizeof(float));
      if (from)
        std::memcpy(to + r * width_ + u.from,
                    from + direction_ * q_.state_direction + (begin + r) * q_.state_batch + u.from,
                    static_cast<size_t>(u.to - u.from) * sizeof(float));
    }
  }

  void save(float* to, int64_t stride, const float* from, int64_t begin, int64_t n, const Units& u) const {
    for (int64_t r = 0; r < n; ++r)
      std::memcpy(to + (begin + r) * stride + u.from, from + r * width_ + u.from,
                  static_cast<size_t>(u.to - u.from) * sizeof(float));
  }

  void step(float* h, float* next, int64_t t, int64_t begin, int64_t n) {
    const bool two_phases = q_.kind == RnnKind::gru && !q_.linear_before_reset;
    for (int phase = 0; phase < (two_phases ? 2 : 1); ++phase) {
      const float* operand = phase ? reset_h_ : h;
      // Of the three gates of a GRU, phase 0 needs the first two and phase 1 the last.
      const int64_t from = phase ? 2 * kUnits : 0, to = two_phases && !phase ? 2 * kUnits : gates_ * kUnits;
      stage([&](const Units& u) {
        if (n == 1)
          one_row(operand, from, to, u, t % 2 != 0);
        else
          for (int64_t r = 0; r < n; ++r) a_[r] = operand + r * width_;
        for (int64_t i = u.first; i < u.last; ++i) {
          if (n > 1) rows(i, from, to, n);
          cells(i, phase, n == 1 ? block_ + (i - u.first) * gates_ * kUnits : block_, h, next, t, begin, n);
        }
        const bool last_phase = phase == 1 || !two_phases;
        if (y_ && last_phase) save(y_ + t * q_.y_step + direction_ * q_.y_direction, q_.y_batch, next, begin, n, u);
      });
    }
  }

  // Every other step goes backwards: the slices that it starts with are still in L1 (about 32 of 128 KiB).
  void one_row(const float* h, int64_t from, int64_t to, const Units& u, bool backwards) const {
    // The other core has just written its units: its lines come side by side instead of one after the other.
    for (int64_t k = 0; k < q_.hidden; k += 16) __builtin_prefetch(h + k);
    const int64_t columns = gates_ * kUnits;
    q_.cell->sums({h, q_.hidden, weights_ + u.first * q_.hidden * columns, columns, from, to, u.last - u.first, block_,
                   backwards});
  }

  void rows(int64_t i, int64_t first, int64_t last, int64_t n) const {
    GemmTile tile;
    tile.a = a_;
    tile.k = q_.hidden;
    tile.ldb = tile.ldc = gates_ * kUnits;
    tile.rows = n;
    for (int64_t from = first; from < last; from += q_.gemm->nr) {
      tile.b = weights_ + i * q_.hidden * tile.ldb + from;
      tile.c = block_ + from;
      tile.cols = std::min<int64_t>(q_.gemm->nr, last - from);
      q_.gemm->run(tile);
    }
  }

  void cells(int64_t i, int phase, const float* sums, float* h, float* next, int64_t t, int64_t begin,
             int64_t n) const {
    for (int64_t r = 0; r < n; ++r)
      x_rows_[r] = x_ + (t * q_.x_step + (begin + r) * q_.x_batch) * columns_ + i * gates_ * kUnits;
    RnnSlice s{};
    s.rows = n;
    s.x = x_rows_;
    s.recurrent = sums;
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
  RnnShare share_;
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
  const RnnLayout l = layout_of(q);
  return static_cast<size_t>(q.directions * q.chunks * (q.splits * l.own + l.shared)) * sizeof(float);
}

int rnn_cut(RnnProblem& q, int threads) {
  // Weights that leave half of an L2 for nothing else are split rather than read by every core, and a stage must be
  // long against the hand-over of h (about 0.1 us): 32 K multiply-adds are 0.5 us from L2.
  const int64_t weights = rnn_columns(q.kind, q.hidden) * q.hidden, share = (threads + q.directions - 1) / q.directions;
  const auto most_splits = [&](int64_t rows) {
    return std::clamp<int64_t>(std::min(rnn_slices(q.hidden) / 2, rows * weights / (1 << 15)), 1, share);
  };
  q.splits = weights > (1 << 17) ? most_splits(q.batch) : 1;
  q.chunks = std::min<int64_t>(q.batch, share / q.splits);
  if (q.splits == 1) q.splits = std::min(share / q.chunks, most_splits((q.batch + q.chunks - 1) / q.chunks));
  return static_cast<int>(q.directions * q.chunks * q.splits);
}

Status rnn_start_step(const void* params, void* const* args, int, int) {
  const auto& q = *static_cast<const RnnProblem*>(params);
  const RnnLayout l = layout_of(q);
  float* shared = static_cast<float*>(args[0]) + q.directions * q.chunks * q.splits * l.own;
  for (int64_t i = 0; i < q.directions * q.chunks; ++i)
    std::memset(shared + i * l.shared, 0, static_cast<size_t>(l.turns) * sizeof(float));
  return Status::ok;
}

Status rnn_step(const void* params, void* const* args, int part, int parts) {
  const auto& q = *static_cast<const RnnProblem*>(params);
  // When the executor runs fewer calls, each takes several.
  const Range share = part_of(q.directions * q.chunks * q.splits, part, parts);
  for (int64_t p = share.begin; p < share.end; ++p)
    if (const Status s = Recurrence(q, args, static_cast<int>(p)).run(); s != Status::ok) return s;
  return Status::ok;
}

}  // namespace fi
