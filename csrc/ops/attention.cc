// SPDX-License-Identifier: Apache-2.0
// fastinfer::Attention and the standard operator.
#include <cmath>

#include "csrc/ops/attention_step.h"

namespace fi {
namespace {

void plan_fused(PlanContext& ctx, const Node& node) {
  const DType y = attention_types(ctx, node);
  const Attributes& a = node.attributes;
  const HeadView q = view_heads(ctx.shape(0), parse_head_layout(a.s("q_layout", "BNSH")));
  const HeadView k = view_heads(ctx.shape(1), parse_head_layout(a.s("k_layout", "BNSH")));
  const HeadView v = view_heads(ctx.shape(2), parse_head_layout(a.s("v_layout", "BNSH")));
  const HeadLayout layout = parse_head_layout(a.s("o_layout", "BNSH"));
  check_model(q.at.e == 1 && v.at.e == 1 && layout != HeadLayout::bnhs, "only k may be laid out as BNHS");
  const Shape out = layout == HeadLayout::bnsh ? Shape{q.batch, q.heads, q.sequence, v.size}
                                               : Shape{q.batch, q.sequence, q.heads, v.size};
  AttentionStep p;
  bind_heads(p, q, k, v, view_heads(out, layout));
  bind_types(p, ctx, node);
  p.scale = a.f("scale", 1.f);
  p.softcap = a.f("softcap", 0.f);
  p.zero_empty = a.i("zero_empty", 0) != 0;
  p.causal = a.i("causal", 0) != 0;
  p.offset = p.sk - p.sq;
  if (ctx.has_input(3)) bind_mask(p, ctx.input(3));
  add_attention(ctx, p, {ctx.in(0), ctx.in(1), ctx.in(2), ctx.in(3), kNoOperand, ctx.output(0, y, out), kNoOperand});
}

// The mask's last axis may be shorter than the keys: those beyond are not seen.
void bind_short_mask(AttentionStep& p, Desc mask) {
  const int rank = mask.shape.rank();
  if (rank > 0 && mask.shape.back() < p.sk) {
    AttentionStep shorter = p;
    shorter.sk = mask.shape.back();
    bind_mask(shorter, mask);
    p.mask = shorter.mask;
    p.mask_at = shorter.mask_at;
    p.visible = shorter.sk;
  } else {
    bind_mask(p, mask);
  }
}

AttentionScores parse_scores(int64_t mode) {
  check_model(mode >= 0 && mode <= 3, "qk_matmul_output_mode is ", mode, ", needed: 0 to 3");
  return static_cast<AttentionScores>(mode + 1);
}

struct Standard {
  PlanContext& ctx;
  const Attributes& a;
  bool flat;  // inputs of rank 3
  HeadView q, k, v;
  AttentionStep p;
  AttentionOperands x;

  Standard(PlanContext& ctx, const Node& node) : ctx(ctx), a(node.attributes), flat(ctx.shape(0).rank() == 3) {
    q = view(0, "q_num_heads");
    k = view(1, "kv_num_heads");
    v = view(2, "kv_num_heads");
  }
  HeadView view(int i, const char* heads) {
    return flat ? split_heads(ctx.shape(i), a.i(heads)) : view_heads(ctx.shape(i), HeadLayout::bnsh);
  }

  // Output `out` is the past (input `past`) and the new (input i); it becomes what attention reads.
  void remember(int out, int past, int i, HeadView& now, Operand& data) {
    data = ctx.in(i);
    if (ctx.has_input(past)) {
      const HeadView before = view_heads(ctx.shape(past), HeadLayout::bnsh);
      const Shape shape{now.batch, now.heads, before.sequence + now.sequence, now.size};
      const Operand y = ctx.output(out, DType::f32, shape);
      add_concat(ctx, before, ctx.in(past), now, data, y);
      now = view_heads(shape, HeadLayout::bnsh);
      data = y;
    } else if (ctx.wants(out) && flat) {
      add_gather_heads(ctx, now, data, ctx.output(out, DType::f32, bnsh(now)));
    } else if (ctx.wants(out)) {
      ctx.alias(out, i, DType::f32, bnsh(now));
    }
  }

  void masks() {
    p.causal = a.i("is_causal", 0) != 0;
    p.left = a.i("left_window_size", -1);
    p.right = a.i("right_window_size", -1);
    check_model(p.left >= -1 && p.right >= -1, "window sizes are ", p.left, " and ", p.right, ", needed: at least -1");
    p.zero_empty = true;
    if (ctx.has_input(3)) bind_short_mask(p, ctx.input(3));
    if (!ctx.has_input(6)) return;
    check_model(!ctx.has_input(4), "nonpad_kv_seqlen and past_key exclude each other");
    check(ctx.dtype(6) == DType::s64 && ctx.shape(6) == Shape{p.batch}, "nonpad_kv_seqlen is ", ctx.input(6),
          ", needed: int64 of ", Shape{p.batch});
    p.has_lengths = p.offset_by_length = true;
    x.lengths = ctx.in(6);
  }

  void plan() {
    check_model(ctx.has_input(4) == ctx.has_input(5), "past_key and past_value must be given together");
    p.offset = ctx.has_input(4) && ctx.shape(4).rank() == 4 ? ctx.shape(4)[2] : 0;
    x = {ctx.in(0), {}, {}, ctx.in(3), kNoOperand, {}, kNoOperand};
    remember(1, 4, 1, k, x.k);
    remember(2, 5, 2, v, x.v);
    const Shape out = flat ? Shape{q.batch, q.sequence, q.heads * v.size} : Shape{q.batch, q.heads, q.sequence, v.size};
    bind_heads(p, q, k, v,
               flat ? split_heads(q.batch, q.sequence, q.heads, v.size) : view_heads(out, HeadLayout::bnsh));
    masks();
    p.scale = a.has("scale") ? a.f("scale") : 1.f / std::sqrt(static_cast<float>(q.size));
    p.softcap = a.f("softcap", 0.f);
    x.o = ctx.output(0, DType::f32, out);
    if (ctx.wants(3)) {
      p.scores = parse_scores(a.i("qk_matmul_output_mode", 0));
      x.scores = ctx.output(3, DType::f32, {p.batch, p.heads, p.sq, p.sk});
    }
    add_attention(ctx, p, x);
  }
};

void plan_attention(PlanContext& ctx, const Node& node) {
  need_f32(ctx, {0, 1, 2, 4, 5});
  if (ctx.has_input(3) && ctx.dtype(3) != DType::boolean) need_f32(ctx, {3});
  if (node.attributes.i("softmax_precision", 1) != 1) ctx.not_native("softmax_precision other than float32");
  Standard(ctx, node).plan();
}

}  // namespace

std::unique_ptr<Op> make_fused_attention(BuildContext& c) { return make_plain<plan_fused>(c); }
std::unique_ptr<Op> make_attention(BuildContext& c) { return make_plain<plan_attention>(c); }

}  // namespace fi
