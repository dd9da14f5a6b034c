// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention/rotary.h"

#include "csrc/ops/attention_step.h"

namespace fi {
namespace {

struct RotaryInputs {
  int positions, cos, sin;
};

int64_t head_count(const Attributes& a, const Shape& x, int64_t cache_half) {
  const int64_t heads = a.i("num_heads", 0);
  if (heads > 0) return heads;
  const int64_t partial = a.i("rotary_embedding_dim", 0);
  check_model(partial == 0 && cache_half > 0, "num_heads is required for an input of rank 3");
  return x[2] / (2 * cache_half);  // com.microsoft: the cache tells the head size
}

void bind_cache(PlanContext& ctx, RotaryStep& p, const RotaryInputs& in) {
  const Shape &cos = ctx.shape(in.cos), half{p.rotated / 2};
  check(cos == ctx.shape(in.sin), "the caches differ: ", cos, " and ", ctx.shape(in.sin));
  const bool by_position = ctx.has_input(in.positions);
  check(cos.rank() == (by_position ? 2 : 3) && cos.back() == p.rotated / 2, "the cosine cache is ", cos,
        ", needed: ", by_position ? "[positions" : "[batch, sequence", ", ", p.rotated / 2, "]");
  if (!by_position) {
    check(cos[0] == p.batch && cos[1] == p.sequence, "the cosine cache is ", cos,
          ", needed: ", Shape{p.batch, p.sequence, p.rotated / 2});
    p.limit = p.batch * p.sequence;
    return;
  }
  const Desc& ids = ctx.input(in.positions);
  check(ids.dtype == DType::s64, "position_ids are ", ids, ", needed: int64");
  p.limit = cos[0];
  p.positions = RotaryPositions::per_token;
  if (ids.shape == Shape{1} || (ids.shape.rank() == 0 && p.batch * p.sequence > 0))
    p.positions = RotaryPositions::from_first;
  else
    check(ids.shape == Shape{p.batch, p.sequence}, "position_ids are ", ids.shape,
          ", needed: ", Shape{p.batch, p.sequence});
}

void add_rotary(PlanContext& ctx, const Node& node, const RotaryInputs& in) {
  for (int i : {0, in.cos, in.sin})
    if (ctx.dtype(i) != DType::f32) ctx.not_native(words("input ", i, " is ", name_of(ctx.dtype(i))));
  const Attributes& a = node.attributes;
  const Shape& shape = ctx.shape(0);
  check(ctx.shape(in.cos).rank() > 0, "the cosine cache is a scalar");
  const HeadView x = shape.rank() == 3 ? split_heads(shape, head_count(a, shape, ctx.shape(in.cos).back()))
                                       : view_heads(shape, HeadLayout::bnsh);
  RotaryStep p;
  p.batch = x.batch;
  p.heads = x.heads;
  p.sequence = x.sequence;
  p.size = x.size;
  p.x = p.y = x.at;
  p.rotated = a.i("rotary_embedding_dim", 0);
  if (p.rotated == 0) p.rotated = x.size;
  check(p.rotated > 0 ? p.rotated <= x.size && p.rotated % 2 == 0 : x.size == 0, "rotary_embedding_dim is ", p.rotated,
        ", needed: even and at most the head size ", x.size);
  p.interleaved = a.i("interleaved", 0) != 0;
  bind_cache(ctx, p, in);
  const Operand y = ctx.output(0, DType::f32, shape);
  const double elements = static_cast<double>(shape.elements());
  if (elements == 0) return;
  const AttentionKernel kernel = select_rotary(ctx.isa());
  ctx.step(kernel.name, kernel.run, p, {ctx.in(0), ctx.in(in.positions), ctx.in(in.cos), ctx.in(in.sin), y},
           ctx.parts_for(elements * (p.interleaved ? 2 : 0.25)), 3 * elements);
}

void plan_rotary(PlanContext& ctx, const Node& node) { add_rotary(ctx, node, {3, 1, 2}); }

void plan_ms_rotary(PlanContext& ctx, const Node& node) {
  if (node.attributes.i("is_packed_batching", 0) != 0) ctx.not_native("is_packed_batching");
  check_model(ctx.has_input(1), "position_ids are required");
  add_rotary(ctx, node, {1, 2, 3});
}

}  // namespace

std::unique_ptr<Op> make_rotary_embedding(BuildContext& c) { return make_plain<plan_rotary>(c); }
std::unique_ptr<Op> make_ms_rotary_embedding(BuildContext& c) { return make_plain<plan_ms_rotary>(c); }

}  // namespace fi
