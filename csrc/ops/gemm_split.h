// SPDX-License-Identifier: Apache-2.0
// Whether a prepared product is cut by rows or by columns, where tuning may know better. Bits do not depend on it.
#pragma once
#include "csrc/ops/op.h"
#include "kernels/gemm/gemm.h"

namespace fi {

inline void choose_split(PlanContext& ctx, GemmStep& p) {
  static constexpr const char* kCandidates[] = {"rows", "columns"};
  if (!ctx.tuning() || ctx.threads() == 1 || p.b_form != GemmB::packed || p.m <= p.kernel->mr) return;
  int64_t batch = 1;
  for (int d = 0; d < p.batch_rank; ++d) batch *= p.batch[d];
  const std::string problem =
      words("split ", ctx.threads(), " ", p.kernel->name, " ", batch, "x", p.m, "x", p.k, "x", p.n);
  p.split_rows = ctx.choose(problem, kCandidates, p.split_rows ? 0 : 1) == 0;
}

}  // namespace fi
