// SPDX-License-Identifier: Apache-2.0
// Trilu, ReverseSequence, Dropout: rows kept, cleared or put elsewhere.
#include <algorithm>

#include "csrc/ops/copy_step.h"
#include "csrc/ops/index_input.h"
#include "csrc/ops/scalar_input.h"

namespace fi {
namespace {

struct Triangle {
  bool upper;
  int64_t rows, cols, unit, total;
};

// Keeps column c of row r if c - r >= k (upper) or <= k. args: x, k (null: 0), y; y may be x.
Status triangle(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const Triangle*>(params);
  const int64_t limit = p.rows + p.cols;  // beyond it k changes nothing
  const int64_t k = args[1] ? std::clamp(*static_cast<const int64_t*>(args[1]), -limit, limit) : 0;
  const Range r = part_of(p.total, part, parts);
  for (int64_t row = r.begin; row < r.end; ++row) {
    const int64_t edge = std::clamp<int64_t>(row % p.rows + k + (p.upper ? 0 : 1), 0, p.cols);
    const int64_t from = p.upper ? edge : 0, to = p.upper ? p.cols : edge;
    const char* x = static_cast<const char*>(args[0]) + row * p.cols * p.unit;
    char* y = static_cast<char*>(args[2]) + row * p.cols * p.unit;
    std::memset(y, 0, from * p.unit);
    if (x != y) std::memcpy(y + from * p.unit, x + from * p.unit, (to - from) * p.unit);
    std::memset(y + to * p.unit, 0, (p.cols - to) * p.unit);
  }
  return Status::ok;
}

void plan_trilu(PlanContext& ctx, const Node& node) {
  const Shape in = ctx.shape(0);
  const DType t = ctx.dtype(0);
  const int rank = in.rank();
  check(rank >= 2, "input is ", in, ", needed: rank 2 or more");
  if (ctx.has_input(1))
    check(ctx.dtype(1) == DType::s64 && ctx.input(1).elements() == 1, "k is ", ctx.input(1), ", needed: one int64");
  const Triangle p{node.attributes.i("upper", 1) != 0, in[rank - 2], in[rank - 1], static_cast<int64_t>(size_of(t)),
                   in.elements(0, rank - 1)};
  const Operand y = ctx.output_over(0, t, in, 0);
  const int64_t n = in.elements();
  if (n > 0) ctx.step("triangle", triangle, p, {ctx.in(0), ctx.in(1), y}, ctx.parts_for(double(n * p.unit) / 16));
}

struct Reverse {
  int64_t batch, time, batch_bytes, time_bytes, row;
  IndexType index;
};

// The first lengths[b] steps of sequence b in reverse. args: x, lengths, y.
Status reverse_sequence(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const Reverse*>(params);
  const Range r = part_of(p.batch, part, parts);
  for (int64_t b = r.begin; b < r.end; ++b) {
    const int64_t n = with_index(p.index, args[1], [&](auto* lengths) { return static_cast<int64_t>(lengths[b]); });
    if (n < 0 || n > p.time) return bad_index(n, 0, p.time + 1);
    const char* x = static_cast<const char*>(args[0]) + b * p.batch_bytes;
    char* y = static_cast<char*>(args[2]) + b * p.batch_bytes;
    for (int64_t t = 0; t < p.time; ++t)
      std::memcpy(y + t * p.time_bytes, x + (t < n ? n - 1 - t : t) * p.time_bytes, p.row);
  }
  return Status::ok;
}

void plan_reverse_sequence(PlanContext& ctx, const Node& node) {
  const Shape in = ctx.shape(0);
  const DType t = ctx.dtype(0);
  const int64_t batch = node.attributes.i("batch_axis", 1), time = node.attributes.i("time_axis", 0);
  check_model(std::min(batch, time) == 0 && std::max(batch, time) == 1, "batch_axis ", batch, " and time_axis ", time,
              ", needed: 0 and 1 in either order");
  check(in.rank() >= 2, "input is ", in, ", needed: rank 2 or more");
  const int b = static_cast<int>(batch);
  check(ctx.shape(1) == Shape{in[b]}, "sequence_lens are ", ctx.shape(1), ", needed: [", in[b], "]");
  const int64_t row = in.elements(2, in.rank()) * static_cast<int64_t>(size_of(t));
  const int64_t outer = row * in[1];
  const Reverse p{in[b], in[1 - b], b == 0 ? outer : row, b == 0 ? row : outer, row, index_type(ctx, 1)};
  const Operand y = ctx.output(0, t, in);
  ctx.step("reverse_sequence", reverse_sequence, p, {ctx.in(0), ctx.in(1), y},
           ctx.parts_for(double(in[0] * in[1]) * (8 + double(row) / 16)));
}

void plan_dropout(PlanContext& ctx, const Node&) {
  static constexpr bool kTrue = true;
  const Shape in = ctx.shape(0);
  check(!ctx.has_input(2) || (ctx.dtype(2) == DType::boolean && ctx.input(2).elements() == 1),
        "training_mode is not a bool");
  if (ctx.has_input(2) && *static_cast<const bool*>(ctx.require(2))) {
    const double ratio = ctx.has_input(1) ? require_number(ctx, 1) : 0.5;
    if (ratio != 0) ctx.not_native("Dropout in training mode");
  }
  ctx.alias(0, 0, ctx.dtype(0), in);
  if (!ctx.wants(1)) return;
  StridedCopy copy(1);
  copy.axis(in.elements(), 0, 1);
  add_copy(ctx, copy, ctx.address(&kTrue), ctx.output(1, DType::boolean, in));
}

}  // namespace

std::unique_ptr<Op> make_trilu(BuildContext& c) { return make_plain<plan_trilu>(c); }
std::unique_ptr<Op> make_reverse_sequence(BuildContext& c) { return make_plain<plan_reverse_sequence>(c); }
std::unique_ptr<Op> make_dropout(BuildContext& c) { return make_plain<plan_dropout>(c); }

}  // namespace fi
