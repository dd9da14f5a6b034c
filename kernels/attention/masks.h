// SPDX-License-Identifier: Apache-2.0
// The forms in which com.microsoft operators give masks and biases, brought into the form that attention.h takes.
#pragma once
#include <cstdint>

#include "kernels/attention/attention.h"

namespace fi {

enum class KeyMask : int32_t {
  none,
  ends,             // [batch]: keys from the number on are hidden
  ends_and_starts,  // [2 batch]: and those below the second
  per_key,          // [batch, keys]: 0 hides
  per_query,        // [batch, queries, keys]: 0 hides
};

// M[b, n, i, j] = (filter where key j is hidden, else 0) + added[b, n, i, j]; M is dense [batch, heads, queries, keys].
struct MaskStep {
  KeyMask form = KeyMask::none;
  int64_t samples = 0;  // of the key mask
  int64_t batch = 1, heads = 1, queries = 1, keys = 0;
  float filter = 0;
  bool has_added = false;
  AttentionTensor added;  // strides
};
// args: key mask (int32) or null, added or null, M.
Status attention_mask_step(const void* params, void* const* args, int part, int parts);

// Y[r, :] = X[r, :] + bias. X's rows are `row` floats apart, Y is dense.
struct RowBias {
  int64_t rows, width, row;
};
// args: X, bias, Y.
Status row_bias_step(const void* params, void* const* args, int part, int parts);

}  // namespace fi
