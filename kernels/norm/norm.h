// SPDX-License-Identifier: Apache-2.0
// Normalisation of float32. Sums run in a fixed order; the variance takes a second pass over x − mean and the mean is
// corrected there, so that a large mean costs no accuracy.
#pragma once
#include <cstdint>

#include "csrc/base/step.h"

namespace fi {

enum class Isa : int;  // csrc/base/cpu.h, which brings in code that must not be compiled per instruction set

// Per row of n:  s = x + r + xbias;  layer: y = (s − mean)·rstd·scale + bias, rms: y = s·rstd·scale.
// args: x, r, xbias, scale, bias, y, sum (s), mean, rstd; all but x and y may be null. y may be x.
struct RowNormParams {
  int64_t rows, n;
  int64_t r_rows;  // rows of r, which repeats: row % r_rows
  float epsilon;
  bool rms;
  bool scalar_scale, scalar_bias;  // one number instead of n
};

// x [batch, groups, n, inner]: one mean and variance per (batch, group) over n·inner; scale and bias [groups·n].
// args: x, scale, bias, y; scale and bias may be null.
struct GroupNormParams {
  int64_t batch, groups, n, inner;
  float epsilon;
};

// The same on x [batch, space, groups·n].
struct LastGroupNormParams {
  int64_t batch, space, groups, n;
  float epsilon;
};
// Channels that are split as one: whole groups, at least 16 channels where groups are single channels.
static inline __attribute__((always_inline)) int64_t groups_per_unit(const LastGroupNormParams& p) {
  return p.n >= 16 ? 1 : (16 + p.n - 1) / p.n;
}
static inline __attribute__((always_inline)) int64_t units_of(const LastGroupNormParams& p) {
  return p.batch * ((p.groups + groups_per_unit(p) - 1) / groups_per_unit(p));
}

struct NormKernel {
  const char* name;
  StepFn run;
};
NormKernel select_row_norm(Isa isa);
NormKernel select_group_norm(Isa isa);
NormKernel select_last_group_norm(Isa isa);

}  // namespace fi
