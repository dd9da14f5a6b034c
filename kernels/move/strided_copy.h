// SPDX-License-Identifier: Apache-2.0
// The one kernel behind transpose, slice, concat, split, pad, expand, tile and fill:
//
//   y[Σ_k i_k·to_k] = x[Σ_k i_k·from_k]   for all i with 0 <= i_k < extent_k
//
// Strides in bytes, of any sign; `from` may be 0 (broadcast); no two i share an output. Elements have `unit` bytes.
// args: x, y. Starts other than the operands' first byte are given with Operand::plus.
#pragma once
#include "csrc/base/step.h"

namespace fi {

enum class Isa : int;  // csrc/base/cpu.h, which brings in code that must not be compiled per instruction set

constexpr int kCopyRank = 16;

// What the innermost loops look like once axes are merged.
enum class CopyMode : int32_t {
  rows,       // `unit` bytes contiguous on both sides; all axes are outer
  fill,       // last axis: contiguous output, one input element
  strided,    // last axis: any strides
  transpose,  // last two axes: the first contiguous in x, the second contiguous in y
};

struct StridedCopy {
  CopyMode mode = CopyMode::rows;
  int32_t rank = 0;
  int64_t unit = 1;
  int64_t extent[kCopyRank], from[kCopyRank], to[kCopyRank];

  explicit StridedCopy(int64_t unit) : unit(unit) {}
  StridedCopy() = default;
  // Adds an inner axis. Axes go from the outermost in y to the innermost. Extents of 1 are dropped and an axis that
  // continues the one before is merged with it, so kCopyRank counts what is left; more throws CopyTooDeep
  // (transpose.h).
  void axis(int64_t extent, int64_t from, int64_t to);
  // Chooses the mode, after the last axis. Calling it again changes nothing.
  void finish();
  int64_t bytes() const;  // written
};

struct CopyKernel {
  const char* name;
  StepFn run;
};
CopyKernel select_copy(Isa, const StridedCopy&);
// In the units of PlanContext::parts_for.
double cost_of(const StridedCopy&);

}  // namespace fi
