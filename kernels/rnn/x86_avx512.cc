// SPDX-License-Identifier: Apache-2.0
#include "kernels/rnn/generic.h"

namespace fi::FI_ISA {

void rnn_cell_f32(const RnnProblem& q, int direction, const RnnSlice& s) { rnn_slice(q, direction, s); }
void rnn_sums_f32(const RnnSums& s) { rnn_sums(s); }

}  // namespace fi::FI_ISA
