// SPDX-License-Identifier: Apache-2.0
// LSTM with 8-bit weights: X and, before every step, h are quantised to u8 with one scale and zero point for the whole
// batch (so here, as in the operator's definition, a sample's result does depend on its company), multiplied exactly
// and rescaled. Gates, activations and states are float32.
#pragma once
#include "kernels/gemm/gemm_u8s8.h"
#include "kernels/gemm/quantize.h"
#include "kernels/rnn/rnn.h"

namespace fi {

// One direction's constants, all in slice order (rnn.h) and padded with 0 to rnn_columns.
struct QuantizedLstmWeights {
  const void *w, *r;               // gemm_u8s8_pack of [depth or hidden][columns]
  const float *w_scale, *r_scale;  // [columns]
  const int32_t *w_zero, *r_zero;  // [columns] as gemm_u8s8.h takes them, or null
  const float* bias;               // [columns] or null
  const float* peephole;           // [3][slices * kUnits] or null
};
struct QuantizedLstm {
  RnnProblem cell;  // layout 0: X is [steps, batch, depth]
  int64_t depth = 0;
  const GemmU8S8* gemm = nullptr;
  const DynamicQuantizeKernel* quantize = nullptr;
  QuantizedLstmWeights weights[2];
};

size_t quantized_lstm_scratch(const QuantizedLstm&);  // bytes, for all directions
// args: X, lengths (int32) or null, initial h or null, initial c or null, Y, Y_h, Y_c (all or null), scratch.
// parts: the directions.
Status quantized_lstm_step(const void* params, void* const* args, int part, int parts);

}  // namespace fi
