// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding, f32. Of each head's first `rotated` elements the pairs (x1, x2) — element i and i + half,
// or 2i and 2i + 1 (interleaved) — become (cos·x1 − sin·x2, sin·x1 + cos·x2); the others are copied.
#pragma once
#include "kernels/attention/attention.h"

namespace fi {

enum class RotaryPositions : int32_t {
  none,       // cos and sin are [batch, sequence, half]
  per_token,  // row positions[batch, sequence] of [positions, half]
  from_first  // row positions[0] + sequence of [positions, half]
};

struct RotaryStep {
  int64_t batch = 0, heads = 0, sequence = 0, size = 0, rotated = 0;
  AttentionTensor x, y;
  RotaryPositions positions = RotaryPositions::none;
  int64_t limit = 0;  // rows of cos and sin
  bool interleaved = false;
};

// args: X, positions (int64 or null), cos, sin, Y.
AttentionKernel select_rotary(Isa);

}  // namespace fi
