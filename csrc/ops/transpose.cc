// SPDX-License-Identifier: Apache-2.0
#include "kernels/move/transpose.h"

#include "csrc/ops/copy_step.h"

namespace fi {
namespace {

void plan_transpose(PlanContext& ctx, const Node& node) {
  const Shape& in = ctx.shape(0);
  const int rank = in.rank();
  const std::vector<int64_t> given = node.attributes.ints("perm");
  check_model(given.empty() || static_cast<int>(given.size()) == rank, "perm has ", given.size(), " entries, input ",
              in, " has rank ", rank);
  int perm[kMaxRank];
  bool seen[kMaxRank] = {};
  Shape out;
  for (int k = 0; k < rank; ++k) {
    const int64_t p = given.empty() ? rank - 1 - k : given[k];
    check_model(p >= 0 && p < rank && !seen[p], "perm is not a permutation of 0..", rank - 1);
    seen[p] = true;
    perm[k] = static_cast<int>(p);
    out.push(in[perm[k]]);
  }
  const DType t = ctx.dtype(0);
  const StridedCopy copy = transpose_copy(in, {perm, static_cast<size_t>(rank)}, static_cast<int64_t>(size_of(t)));
  if (copy.rank == 0 || copy.bytes() == 0) return ctx.alias(0, 0, t, out);
  add_copy(ctx, copy, ctx.in(0), ctx.output(0, t, out));
}

}  // namespace

std::unique_ptr<Op> make_transpose(BuildContext& c) { return make_plain<plan_transpose>(c); }

}  // namespace fi
