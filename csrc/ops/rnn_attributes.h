// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <string>

#include "csrc/ops/op.h"
#include "kernels/rnn/rnn.h"

namespace fi {

// The attributes that LSTM, GRU and RNN share; ModelError for what ONNX does not know.
struct RnnAttributes {
  RnnKind kind;
  int64_t directions, hidden;
  bool batch_first, linear_before_reset, input_forget, backwards;
  float clip;
  RnnActivation activation[2][3];

  RnnAttributes(const Attributes& a, RnnKind kind);
  RnnProblem problem(int64_t directions) const;
};

}  // namespace fi
