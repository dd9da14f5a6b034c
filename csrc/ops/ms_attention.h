// SPDX-License-Identifier: Apache-2.0
// What com.microsoft's attention operators have in common.
#pragma once
#include "csrc/ops/attention_step.h"

namespace fi {

// Binds a key mask (input `mask`: int32, one of several shapes) and a bias of the scores (input `added`), either of
// which may be absent, as one float mask. Returns its operand. `past` keys precede the new ones; causal rows see up to
// themselves.
Operand bind_ms_masks(PlanContext&, AttentionStep&, int mask, int added, float filter);
float ms_scale(const Attributes&, int64_t head_size);

}  // namespace fi
