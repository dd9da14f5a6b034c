// SPDX-License-Identifier: Apache-2.0
#include "csrc/ops/matmul_shape.h"

#include <algorithm>

namespace fi {
namespace {

// Strides of the batch axes in matrices, aligned with an output batch of `rank` axes; 0 where broadcast.
void batch_strides(const Shape& lead, int rank, int64_t* strides) {
  int64_t step = 1;
  for (int d = 0; d < rank; ++d) strides[d] = 0;
  for (int d = lead.rank() - 1; d >= 0; step *= lead[d--])
    if (lead[d] != 1) strides[rank - lead.rank() + d] = step;
}

Shape leading(const Shape& s) { return s.rank() < 2 ? Shape{} : Shape(s.begin(), s.end() - 2); }

}  // namespace

int64_t MatMulShape::batches() const {
  int64_t n = 1;
  for (int d = 0; d < batch_rank; ++d) n *= batch[d];
  return n;
}

MatMulShape matmul_shape(const Shape& a, const Shape& b, bool trans_a, bool trans_b) {
  check(a.rank() > 0 && b.rank() > 0, "a matrix product needs vectors or matrices, given ", a, " and ", b);
  MatMulShape s;
  int64_t k_of_b = b[0];
  s.k = a.back();
  if (a.rank() > 1) {
    s.m = a[a.rank() - 2];
    if (trans_a) std::swap(s.m, s.k);
  }
  if (b.rank() > 1) {
    k_of_b = b[b.rank() - 2];
    s.n = b.back();
    if (trans_b) std::swap(s.n, k_of_b);
  }
  check(s.k == k_of_b, "cannot multiply ", a, trans_a ? " (transposed)" : "", " by ", b, trans_b ? " (transposed)" : "",
        ": ", s.k, " columns against ", k_of_b, " rows");
  const Shape la = leading(a), lb = leading(b), lead = broadcast(la, lb);
  s.out = lead;
  if (a.rank() > 1) s.out.push(s.m);
  if (b.rank() > 1) s.out.push(s.n);
  int64_t a_step[kMaxRank], b_step[kMaxRank];
  batch_strides(la, lead.rank(), a_step);
  batch_strides(lb, lead.rank(), b_step);
  for (int d = 0; d < lead.rank(); ++d) {
    if (lead[d] == 1) continue;
    const int last = s.batch_rank - 1;
    if (last >= 0 && s.a_batch[last] == a_step[d] * lead[d] && s.b_batch[last] == b_step[d] * lead[d]) {
      s.batch[last] *= lead[d];
      s.a_batch[last] = a_step[d];
      s.b_batch[last] = b_step[d];
      continue;
    }
    s.batch[s.batch_rank] = lead[d];
    s.a_batch[s.batch_rank] = a_step[d];
    s.b_batch[s.batch_rank++] = b_step[d];
  }
  return s;
}

void fold_batch_into_rows(MatMulShape& s) {
  int64_t step = 1;  // matrices of A that m holds by now
  while (s.batch_rank > 0 && s.b_batch[s.batch_rank - 1] == 0 && s.a_batch[s.batch_rank - 1] == step) {
    step *= s.batch[--s.batch_rank];
    s.m *= s.batch[s.batch_rank];
  }
}

}  // namespace fi
