// SPDX-License-Identifier: Apache-2.0
#include "csrc/ops/attention_step.h"

#include <algorithm>

#include "csrc/ops/bf16.h"

namespace fi {

HeadLayout parse_head_layout(const std::string& name) {
  if (name == "BNSH") return HeadLayout::bnsh;
  if (name == "BSNH") return HeadLayout::bsnh;
  check_model(name == "BNHS", "unknown attention layout '", name, "', needed: BNSH, BSNH or BNHS");
  return HeadLayout::bnhs;
}

HeadView view_heads(const Shape& s, HeadLayout layout) {
  check(s.rank() == 4, "an attention operand is ", s, ", needed: rank 4");
  switch (layout) {
    case HeadLayout::bnsh:
      return {s[0], s[1], s[2], s[3], {s[1] * s[2] * s[3], s[2] * s[3], s[3], 1}};
    case HeadLayout::bsnh:
      return {s[0], s[2], s[1], s[3], {s[1] * s[2] * s[3], s[3], s[2] * s[3], 1}};
    default:
      return {s[0], s[1], s[3], s[2], {s[1] * s[2] * s[3], s[2] * s[3], 1, s[3]}};
  }
}

HeadView split_heads(int64_t batch, int64_t sequence, int64_t heads, int64_t size, int64_t row) {
  if (row == 0) row = heads * size;
  return {batch, heads, sequence, size, {sequence * row, size, row, 1}};
}

HeadView split_heads(const Shape& s, int64_t heads) {
  check(s.rank() == 3, "an attention operand is ", s, ", needed: [batch, sequence, hidden]");
  check_model(heads > 0, "the number of heads is ", heads, ", needed: at least 1");
  check(s[2] % heads == 0, "hidden size ", s[2], " is not a multiple of ", heads, " heads");
  return split_heads(s[0], s[1], heads, s[2] / heads);
}

void need_f32(PlanContext& ctx, std::initializer_list<int> inputs) {
  for (int i : inputs)
    if (ctx.has_input(i) && ctx.dtype(i) != DType::f32)
      ctx.not_native(words("input ", i, " is ", name_of(ctx.dtype(i))));
}

DType attention_types(PlanContext& ctx, const Node& node) {
  if (!allows_bf16(node)) need_f32(ctx, {0, 1, 2});
  for (int i : {0, 1, 2})
    if (!float_or_bf16(ctx.dtype(i))) ctx.not_native(words("input ", i, " is ", name_of(ctx.dtype(i))));
  const DType y = output_dtype(node);
  check_model(y == DType::f32 || allows_bf16(node), "output_dtype is 'bf16' without precision = 'bf16'");
  return y;
}

void bind_types(AttentionStep& p, PlanContext& ctx, const Node& node) {
  p.bf16 = allows_bf16(node);
  p.q_bf16 = ctx.dtype(0) == DType::bf16;
  p.k_bf16 = ctx.dtype(1) == DType::bf16;
  p.v_bf16 = ctx.dtype(2) == DType::bf16;
  p.o_bf16 = output_dtype(node) == DType::bf16;
}

AttentionKernel kernel_of(const AttentionStep& p, Isa isa) {
  return p.bf16 ? select_attention_bf16(isa) : select_attention(isa);
}

void bind_heads(AttentionStep& p, const HeadView& q, const HeadView& k, const HeadView& v, const HeadView& o) {
  check(q.batch == k.batch && k.batch == v.batch, "batch of query, key and value differ: ", q.batch, ", ", k.batch,
        ", ", v.batch);
  check(k.heads == v.heads, "key has ", k.heads, " heads, value ", v.heads);
  check(q.heads == 0 || (k.heads > 0 && q.heads % k.heads == 0), q.heads, " query heads are not a multiple of ",
        k.heads, " key heads");
  check(k.sequence == v.sequence, "key has ", k.sequence, " positions, value ", v.sequence);
  check(q.size == k.size, "query heads have ", q.size, " elements, key heads ", k.size);
  check(k.sequence < INT32_MAX && q.sequence < INT32_MAX, "sequences of 2^31 positions and more are not supported");
  p.batch = q.batch;
  p.heads = q.heads;
  p.kv_heads = k.heads;
  p.sq = q.sequence;
  p.sk = p.visible = k.sequence;
  p.d = q.size;
  p.dv = v.size;
  p.q = q.at;
  p.k = k.at;
  p.v = v.at;
  p.o = o.at;
}

void bind_mask(AttentionStep& p, const Desc& mask) {
  check(mask.dtype == DType::f32 || mask.dtype == DType::boolean, "the mask is ", mask, ", needed: float32 or bool");
  p.mask = mask.dtype == DType::f32 ? AttentionMask::added : AttentionMask::kept;
  const Shape strides = strides_of(mask.shape);
  const int64_t extents[] = {p.batch, p.heads, p.sq, p.sk};
  int64_t at[4] = {};
  const int rank = mask.shape.rank();
  check(rank <= 4, "the mask is ", mask, ", needed: at most 4 axes");
  for (int i = 0; i < rank; ++i) {
    const int axis = 4 - rank + i;
    const int64_t n = mask.shape[i];
    check(n == 1 || n == extents[axis], "mask ", mask, " does not broadcast to ", Shape(extents, extents + 4));
    at[axis] = n == 1 ? 0 : strides[i];
  }
  p.mask_at = {at[0], at[1], at[2], at[3]};
}

void add_attention(PlanContext& ctx, const AttentionStep& p, const AttentionOperands& x) {
  if (p.batch * p.heads * p.sq == 0 || (p.dv == 0 && p.scores == AttentionScores::none)) return;
  const double flops = attention_flops(p);
  const int64_t units = attention_units(p);
  const int parts = static_cast<int>(std::min<int64_t>(ctx.parts_for(flops / 24), units));
  const size_t floats = static_cast<size_t>(attention_scratch(p, parts));
  const AttentionKernel kernel = kernel_of(p, ctx.isa());
  ctx.step(kernel.name, kernel.run, p,
           {x.q, x.k, x.v, x.mask, x.lengths, x.o, ctx.scratch(floats * sizeof(float)), x.scores}, parts, flops);
}

namespace {

StridedCopy heads_copy(const HeadView& x, int64_t total) {
  StridedCopy copy(sizeof(float));
  const int64_t unit = sizeof(float), row = x.size * unit;
  copy.axis(x.batch, x.at.b * unit, x.heads * total * row);
  copy.axis(x.heads, x.at.h * unit, total * row);
  copy.axis(x.sequence, x.at.s * unit, row);
  copy.axis(x.size, x.at.e * unit, unit);
  return copy;
}

}  // namespace

void add_concat(PlanContext& ctx, const HeadView& past, Operand past_data, const HeadView& x, Operand x_data,
                Operand y) {
  check(past.batch == x.batch && past.heads == x.heads && past.size == x.size, "the past is ", bnsh(past),
        ", which does not go with the new ", bnsh(x));
  const int64_t total = past.sequence + x.sequence;
  add_copy(ctx, heads_copy(past, total), past_data, y);
  add_copy(ctx, heads_copy(x, total), x_data, y.plus(past.sequence * x.size * static_cast<int64_t>(sizeof(float))));
}

void add_gather_heads(PlanContext& ctx, const HeadView& x, Operand x_data, Operand y) {
  add_copy(ctx, heads_copy(x, x.sequence), x_data, y);
}

}  // namespace fi
