// SPDX-License-Identifier: Apache-2.0
#include "csrc/ops/typed_step.h"

#include <algorithm>

#include "kernels/pointwise/walk.h"

namespace fi {
namespace {

struct TypedParams {
  RowFn fn;
  int32_t rank, inputs;
  int64_t extent[kMaxRank], stride[3][kMaxRank];  // bytes
  int32_t in_bytes[3], out_bytes;
  double alpha, beta;
};

Status run_typed(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const TypedParams*>(params);
  const int last = p.rank - 1;
  int64_t total = 1;
  for (int d = 0; d < p.rank; ++d) total *= p.extent[d];
  const Range range = part_of(total, part, parts, 64);
  int64_t index[kMaxRank], offset[3] = {};
  for (int64_t d = last, rest = range.begin; d >= 0; --d) {
    index[d] = rest % p.extent[d];
    rest /= p.extent[d];
    for (int k = 0; k < p.inputs; ++k) offset[k] += index[d] * p.stride[k][d];
  }
  TypedRow row{};
  row.alpha = p.alpha;
  row.beta = p.beta;
  for (int k = 0; k < p.inputs; ++k) row.step[k] = p.stride[k][last] != 0;
  for (int64_t at = range.begin; at < range.end;) {
    row.n = std::min(p.extent[last] - index[last], range.end - at);
    row.y = static_cast<char*>(args[p.inputs]) + at * p.out_bytes;
    for (int k = 0; k < p.inputs; ++k) row.x[k] = static_cast<const char*>(args[k]) + offset[k];
    if (const Status s = p.fn(row); s != Status::ok) return s;
    at += row.n;
    for (int k = 0; k < p.inputs; ++k) offset[k] -= index[last] * p.stride[k][last];
    index[last] = 0;
    for (int d = last - 1; d >= 0; --d) {
      for (int k = 0; k < p.inputs; ++k) offset[k] += p.stride[k][d];
      if (++index[d] < p.extent[d]) break;
      for (int k = 0; k < p.inputs; ++k) offset[k] -= p.extent[d] * p.stride[k][d];
      index[d] = 0;
    }
  }
  return Status::ok;
}

}  // namespace

void add_typed(PlanContext& ctx, const char* kernel, RowFn fn, std::span<const TypedArg> inputs, const TypedArg& output,
               double cost, double alpha, double beta) {
  Shape shapes[3];
  Operand args[4];
  for (size_t k = 0; k < inputs.size(); ++k) {
    shapes[k] = inputs[k].desc.shape;
    args[k] = inputs[k].data;
  }
  args[inputs.size()] = output.data;
  const Walk walk = walk_over(output.desc.shape, std::span<const Shape>(shapes, inputs.size()));
  if (walk.elements() == 0) return;
  TypedParams p{};
  p.fn = fn;
  p.rank = walk.rank;
  p.inputs = static_cast<int32_t>(inputs.size());
  p.out_bytes = static_cast<int32_t>(size_of(output.desc.dtype));
  p.alpha = alpha;
  p.beta = beta;
  std::copy(walk.extent, walk.extent + walk.rank, p.extent);
  for (size_t k = 0; k < inputs.size(); ++k) {
    p.in_bytes[k] = static_cast<int32_t>(size_of(inputs[k].desc.dtype));
    for (int d = 0; d < walk.rank; ++d) p.stride[k][d] = walk.stride[k][d] * p.in_bytes[k];
  }
  ctx.step(kernel, run_typed, p, std::span<const Operand>(args, inputs.size() + 1),
           ctx.parts_for(cost * static_cast<double>(walk.elements())));
}

}  // namespace fi
