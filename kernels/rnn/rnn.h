// SPDX-License-Identifier: Apache-2.0
// Recurrent layers. The input's share of all gates is one GEMM over the whole sequence; the recurrence then runs step
// by step, 16 hidden units at a time: one microkernel call gives all gates of these units, which are activated while
// they are in cache.
//   LSTM  i,o,f,c~ = act(x W + h R + b [+ p·c]),  c' = f c + i c~,  h' = o act(c')
//   GRU   z,r = act(x W + h R + b),  h~ = act(x W + (r h) R + b)  or  act(x W + r (h R + b_r) + b_w),  h' = (1-z) h~ +
//   z h RNN   h' = act(x W + h R + b)
// A row (one sample) is never mixed with another one, and each gate is one chain over k: bits do not depend on the
// batch.
#pragma once
#include "kernels/gemm/gemm.h"

namespace fi {

constexpr int kUnits = 16;  // hidden units of a slice

enum class RnnKind : int32_t { lstm, gru, rnn };
enum class RnnFunction : int32_t {
  sigmoid,
  tanh,
  relu,
  leaky_relu,
  thresholded_relu,
  scaled_tanh,
  hard_sigmoid,
  elu,
  softsign,
  softplus,
  affine
};
struct RnnActivation {
  RnnFunction function = RnnFunction::sigmoid;
  float alpha = 0, beta = 0;
};
static inline int rnn_gates(RnnKind k) { return k == RnnKind::lstm ? 4 : k == RnnKind::gru ? 3 : 1; }

struct RnnCellKernel;
struct RnnProblem {
  RnnKind kind = RnnKind::lstm;
  int64_t steps = 0, batch = 0, hidden = 0, directions = 1;
  bool reverse[2] = {false, false};
  // Row (t, b) of the input's gates is at t * x_step + b * x_batch, in rows; Y (t, d, b) and states (d, b) likewise.
  int64_t x_step = 0, x_batch = 0, y_step = 0, y_direction = 0, y_batch = 0, state_direction = 0, state_batch = 0;
  bool input_forget = false, linear_before_reset = false;
  float clip = 0;  // 0: none
  RnnActivation activation[2][3];
  int64_t chunks = 1;  // parts = directions * chunks of the batch * splits of the hidden units
  int64_t splits = 1;
  const GemmF32* gemm = nullptr;
  const RnnCellKernel* cell = nullptr;
};

// One slice of one time step for `rows` rows. Gate blocks are [row][gate][kUnits].
struct RnnSlice {
  int64_t rows;
  const float* const* x;     // per row: the input's gates of this slice
  const float* recurrent;    // [row][gates][kUnits]
  const float* reset_bias;   // [kUnits]: GRU's recurrent bias of h~ under linear_before_reset, or null
  const float* peephole[3];  // i, o, f: [kUnits] or null
  float *h, *c;              // first row's units; rows are `row` apart. h: previous value on entry, for GRU and RNN
  float* h_next;
  float* reset_h;  // GRU: r·h, written in phase 0 and read back as the operand of phase 1
  int64_t row;
  int phase;  // GRU without linear_before_reset: 0 = z and r, 1 = h~ and h'; else 0
};
// The recurrent sums of one row for several slices: out[i * columns + n] = sum over k of h[k] * weights[i][k][n] for
// from <= n < to, with the chains of the microkernel.
struct RnnSums {
  const float* h;
  int64_t k;
  const float* weights;  // of slice i at weights + i * k * columns
  int64_t columns, from, to, slices;
  float* out;
  bool backwards;  // the last slices first
};
struct RnnCellKernel {
  const char* name;
  Isa isa;
  void (*run)(const RnnProblem&, int direction, const RnnSlice&);
  void (*sums)(const RnnSums&);
};
const RnnCellKernel& rnn_cell(Isa);

static inline int64_t rnn_slices(int64_t hidden) { return (hidden + kUnits - 1) / kUnits; }
// Columns of the input GEMM: [slice][gate][kUnits].
static inline int64_t rnn_columns(RnnKind k, int64_t hidden) { return rnn_slices(hidden) * rnn_gates(k) * kUnits; }
// dense [gates * hidden, depth] (ONNX's W or R of one direction) → rows in slice order, padding rows zero.
void rnn_permute(RnnKind, int64_t hidden, int64_t depth, const float* dense, float* permuted);
void rnn_restore(RnnKind, int64_t hidden, int64_t depth, const float* permuted, float* dense);
// R of one direction, [slice][k][gates * kUnits].
void rnn_pack_recurrent(RnnKind, int64_t hidden, const float* dense, float* packed);
void rnn_unpack_recurrent(RnnKind, int64_t hidden, const float* packed, float* dense);

size_t rnn_scratch(const RnnProblem&);  // bytes, for all parts
// Chooses chunks and splits for that many threads; gives the number of parts.
int rnn_cut(RnnProblem&, int threads);
// args: scratch. Must run before rnn_step where splits > 1.
Status rnn_start_step(const void* params, void* const* args, int part, int parts);
// args: gates of the input [direction][row][columns], R packed [direction], reset bias [direction][slices * kUnits] or
// null, peepholes [direction][3][slices * kUnits] or null, initial h, initial c, lengths (int32), Y, Y_h, Y_c (all or
// null), scratch.
Status rnn_step(const void* params, void* const* args, int part, int parts);

}  // namespace fi
