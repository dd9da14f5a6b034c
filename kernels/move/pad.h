// SPDX-License-Identifier: Apache-2.0
// Padding that repeats the data: y[o] = x[m_k(o_k - begin_k)] per axis k, where m maps every integer to [0, n):
//   edge:    clamp              wrap:    i mod n
//   reflect: |…| with period 2(n-1), the ends are not repeated
// args: x, y. The innermost axis moves units of `unit` bytes.
#pragma once
#include "csrc/base/shape.h"
#include "csrc/base/step.h"

namespace fi {

enum class PadMode : int32_t { reflect, edge, wrap };

struct PadCopy {
  PadMode mode;
  int32_t rank;  // >= 1
  int64_t unit;
  int64_t out[kMaxRank], in[kMaxRank], begin[kMaxRank];
  int64_t stride[kMaxRank];  // of x, in bytes
};
Status pad_copy(const void* params, void* const* args, int part, int parts);

}  // namespace fi
