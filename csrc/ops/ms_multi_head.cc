// SPDX-License-Identifier: Apache-2.0
// com.microsoft::MultiHeadAttention.
#include "csrc/ops/ms_attention.h"
#include "kernels/attention/masks.h"

namespace fi {
namespace {

enum Input { kQuery, kKey, kValue, kBias, kMask, kAdded, kPastKey, kPastValue, kPastLength, kIndirection };

struct Side {
  HeadView view;
  Operand data;
};

// `count` tensors interleaved as [batch, sequence, heads, count, size]; number `which` of them.
Side packed_side(PlanContext& ctx, int input, int64_t heads, int64_t count, int64_t which) {
  const Shape& s = ctx.shape(input);
  check(s.rank() == 5 && s[2] == heads && s[3] == count, "a packed operand is ", s, ", needed: [batch, sequence, ",
        heads, ", ", count, ", size]");
  const int64_t head = count * s[4], row = heads * head;
  return {{s[0], heads, s[1], s[4], {s[1] * row, head, row, 1}},
          ctx.in(input).plus(which * s[4] * static_cast<int64_t>(sizeof(float)))};
}

struct MultiHead {
  PlanContext& ctx;
  const Attributes& a;
  int64_t heads;
  Side q, k, v;
  AttentionStep p;
  bool kept_key = false;  // key and value are given as [batch, heads, sequence, size]: a cache, without bias

  MultiHead(PlanContext& ctx, const Node& node) : ctx(ctx), a(node.attributes), heads(a.i("num_heads")) {
    check_model(heads > 0, "num_heads is ", heads, ", needed: at least 1");
    if (ctx.shape(kQuery).rank() == 5) {
      q = packed_side(ctx, kQuery, heads, 3, 0);
      k = packed_side(ctx, kQuery, heads, 3, 1);
      v = packed_side(ctx, kQuery, heads, 3, 2);
      return;
    }
    q = {split_heads(ctx.shape(kQuery), heads), ctx.in(kQuery)};
    const Shape& key = ctx.shape(kKey);
    if (key.rank() == 5) {
      k = packed_side(ctx, kKey, heads, 2, 0);
      v = packed_side(ctx, kKey, heads, 2, 1);
    } else if (key.rank() == 4) {
      kept_key = true;
      k = {view_heads(key, HeadLayout::bnsh), ctx.in(kKey)};
      v = {view_heads(ctx.shape(kValue), HeadLayout::bnsh), ctx.in(kValue)};
    } else {
      k = {split_heads(key, heads), ctx.in(kKey)};
      v = {split_heads(ctx.shape(kValue), heads), ctx.in(kValue)};
    }
  }

  // x + bias[first ...] as dense [batch, sequence, heads, size].
  void add_bias(Side& x, int64_t first) {
    const int64_t width = x.view.heads * x.view.size, rows = x.view.batch * x.view.sequence;
    const Operand y = ctx.scratch(static_cast<size_t>(rows * width) * sizeof(float));
    if (rows * width > 0) {
      Operand from = x.data;
      if (x.view.at.h != x.view.size) {  // packed: gather the rows first
        StridedCopy copy(sizeof(float));
        const int64_t unit = sizeof(float);
        copy.axis(rows, x.view.at.s * unit, width * unit);
        copy.axis(x.view.heads, x.view.at.h * unit, x.view.size * unit);
        copy.axis(x.view.size, unit, unit);
        add_copy(ctx, copy, x.data, y);
        from = y;
      }
      ctx.step("row_bias", row_bias_step, RowBias{rows, width, width},
               {from, ctx.in(kBias).plus(first * static_cast<int64_t>(sizeof(float))), y},
               ctx.parts_for(static_cast<double>(rows * width) / 8));
    }
    x = {split_heads(x.view.batch, x.view.sequence, x.view.heads, x.view.size), y};
  }

  void add_biases() {
    const int64_t nq = heads * q.view.size, nk = heads * k.view.size, nv = heads * v.view.size;
    check(ctx.shape(kBias) == Shape{nq + nk + nv}, "bias is ", ctx.shape(kBias), ", needed: ", Shape{nq + nk + nv});
    add_bias(q, 0);
    if (kept_key) return;
    add_bias(k, nq);
    add_bias(v, nq + nk);
  }

  void remember(Side& x, int past, int out) {
    HeadView before = view_heads({x.view.batch, x.view.heads, 0, x.view.size}, HeadLayout::bnsh);
    if (ctx.has_input(past)) before = view_heads(ctx.shape(past), HeadLayout::bnsh);
    const Shape now{x.view.batch, x.view.heads, before.sequence + x.view.sequence, x.view.size};
    const Operand y = ctx.output(out, DType::f32, now);
    add_concat(ctx, before, ctx.in(past), x.view, x.data, y);
    x = {view_heads(now, HeadLayout::bnsh), y};
  }

  void plan() {
    check_model(ctx.has_input(kPastKey) == ctx.has_input(kPastValue), "past_key and past_value must be given together");
    if (ctx.has_input(kBias)) add_biases();
    if (ctx.has_input(kPastKey)) {
      check(ctx.shape(kPastKey).rank() == 4, "past_key is ", ctx.shape(kPastKey), ", needed: rank 4");
      p.offset = ctx.shape(kPastKey)[2];
    }
    if (ctx.has_input(kPastKey) || ctx.wants(1)) remember(k, kPastKey, 1);
    if (ctx.has_input(kPastKey) || ctx.wants(2)) remember(v, kPastValue, 2);
    bind_heads(p, q.view, k.view, v.view, split_heads(q.view.batch, q.view.sequence, heads, v.view.size));
    p.scale = ms_scale(a, q.view.size);
    p.causal = a.i("unidirectional", 0) != 0;
    AttentionOperands x{q.data, k.data, v.data, {}, kNoOperand, {}, kNoOperand};
    x.mask = bind_ms_masks(ctx, p, kMask, kAdded, a.f("mask_filter_value", -10000.f));
    x.o = ctx.output(0, DType::f32, {p.batch, p.sq, heads * p.dv});
    if (ctx.wants(3)) {
      p.scores = AttentionScores::masked;
      x.scores = ctx.output(3, DType::f32, {p.batch, p.heads, p.sq, p.sk});
    }
    add_attention(ctx, p, x);
  }
};

void plan_multi_head(PlanContext& ctx, const Node& node) {
  need_f32(ctx, {kQuery, kKey, kValue, kBias, kAdded, kPastKey, kPastValue});
  if (ctx.has_input(kPastLength) || ctx.has_input(kIndirection)) ctx.not_native("a shared cache buffer or beam search");
  MultiHead(ctx, node).plan();
}

}  // namespace

std::unique_ptr<Op> make_multi_head_attention(BuildContext& c) { return make_plain<plan_multi_head>(c); }

}  // namespace fi
