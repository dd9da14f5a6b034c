// SPDX-License-Identifier: Apache-2.0
// com.microsoft::Attention: the projections of query, key and value in one product, then attention.
#include "csrc/ops/ms_attention.h"

#include <cmath>

#include "csrc/ops/gemm_pack.h"
#include "kernels/attention/masks.h"

namespace fi {
namespace {

KeyMask form_of(const Desc& mask, const AttentionStep& p) {
  const Shape& s = mask.shape;
  check(mask.dtype == DType::s32, "the mask is ", mask, ", needed: int32");
  if (s == Shape{p.batch} || s == Shape{3 * p.batch + 2}) return KeyMask::ends;
  if (s == Shape{2 * p.batch}) return KeyMask::ends_and_starts;
  if (s == Shape{p.batch, p.sk}) return KeyMask::per_key;
  check(s == Shape{p.batch, p.sq, p.sk}, "the mask is ", mask, ", which does not fit batch ", p.batch, ", ", p.sq,
        " queries and ", p.sk, " keys");
  return KeyMask::per_query;
}

}  // namespace

float ms_scale(const Attributes& a, int64_t head_size) {
  const float given = a.f("scale", 0.f);
  return given != 0 ? given : 1.f / std::sqrt(static_cast<float>(head_size));
}

Operand bind_ms_masks(PlanContext& ctx, AttentionStep& p, int mask, int added, float filter) {
  MaskStep m;
  m.samples = p.batch;
  m.keys = p.sk;
  m.filter = filter;
  if (ctx.has_input(mask)) {
    if (ctx.shape(mask).rank() == 4) ctx.not_native("a mask of rank 4");
    m.form = form_of(ctx.input(mask), p);
    m.batch = p.batch;
    if (m.form == KeyMask::per_query) m.queries = p.sq;
  }
  if (ctx.has_input(added)) {
    AttentionStep bias = p;
    bind_mask(bias, ctx.input(added));
    if (m.form == KeyMask::none) {
      p.mask = bias.mask;
      p.mask_at = bias.mask_at;
      return ctx.in(added);
    }
    m.has_added = true;
    m.added = bias.mask_at;
    m.queries = p.sq;
    if (bias.mask_at.h != 0) m.heads = p.heads;
  }
  if (m.form == KeyMask::none) return kNoOperand;
  const Desc out{DType::f32, {m.batch, m.heads, m.queries, m.keys}};
  const Operand y = ctx.scratch(out.bytes());
  bind_mask(p, out);
  if (out.bytes() > 0)
    ctx.step("attention_mask", attention_mask_step, m, {ctx.in(mask), m.has_added ? ctx.in(added) : kNoOperand, y},
             ctx.parts_for(2 * static_cast<double>(out.elements())));
  return y;
}

namespace {

enum Input { kX, kWeights, kBias, kMask, kPast, kAdded };

class MsAttention final : public Op {
 public:
  explicit MsAttention(BuildContext& ctx) : node_(ctx.node), kernel_(gemm_f32(ctx.isa)) {
    const Desc* w = ctx.constant_desc(kWeights);
    if (w && w->dtype == DType::f32 && w->shape.rank() == 2)
      packed_ = ctx.packed(kWeights, gemm_packing(kernel_, w->shape, false));
  }

  void plan(PlanContext& ctx) const override {
    const Attributes& a = node_.attributes;
    need_f32(ctx, {kX, kWeights, kBias, kPast, kAdded});
    if (a.i("do_rotary", 0) != 0) ctx.not_native("do_rotary");
    if (a.i("past_present_share_buffer", 0) != 0) ctx.not_native("past_present_share_buffer");
    const Sizes n = sizes(ctx);
    const Operand qkv = project(ctx, n);
    const auto part = [&](int64_t first, int64_t width) {
      HeadView v = split_heads(n.batch, n.sequence, n.heads, width / n.heads, n.total());
      return std::pair{v, qkv.plus(first * static_cast<int64_t>(sizeof(float)))};
    };
    auto [q, q_data] = part(0, n.q);
    auto [k, k_data] = part(n.q, n.k);
    auto [v, v_data] = part(n.q + n.k, n.v);
    AttentionStep p;
    if (ctx.has_input(kPast) || ctx.wants(1)) remember(ctx, p, k, k_data, v, v_data);
    bind_heads(p, q, k, v, split_heads(n.batch, n.sequence, n.heads, n.v / n.heads));
    p.scale = ms_scale(a, q.size);
    p.causal = a.i("unidirectional", 0) != 0;
    const Operand mask = bind_ms_masks(ctx, p, kMask, kAdded, a.f("mask_filter_value", -10000.f));
    const Operand y = ctx.output(0, DType::f32, {n.batch, n.sequence, n.v});
    add_attention(ctx, p, {q_data, k_data, v_data, mask, kNoOperand, y, kNoOperand});
  }

 private:
  struct Sizes {
    int64_t batch, sequence, heads, q, k, v;
    int64_t total() const { return q + k + v; }
  };

  Sizes sizes(PlanContext& ctx) const {
    const Shape &x = ctx.shape(kX), &w = ctx.shape(kWeights);
    check(x.rank() == 3 && w.rank() == 2 && w[0] == x[2], "input is ", x, ", weights are ", w,
          ", needed: [batch, sequence, depth] and [depth, hidden]");
    const std::vector<int64_t> given = node_.attributes.ints("qkv_hidden_sizes");
    check_model(given.empty() || given.size() == 3, "qkv_hidden_sizes has ", given.size(), " entries, needed: 3");
    Sizes n{x[0], x[1], node_.attributes.i("num_heads"), w[1] / 3, w[1] / 3, w[1] / 3};
    if (!given.empty()) n.q = given[0], n.k = given[1], n.v = given[2];
    check_model(n.heads > 0, "num_heads is ", n.heads, ", needed: at least 1");
    check(n.q >= 0 && n.v >= 0 && n.q <= w[1] && n.v <= w[1] && n.q == n.k && n.total() == w[1] && n.q % n.heads == 0 &&
              n.v % n.heads == 0,
          "hidden sizes ", n.q, ", ", n.k, ", ", n.v, " do not fit weights ", w, " and ", n.heads, " heads");
    return n;
  }

  // X·W + bias, [batch · sequence, q + k + v].
  Operand project(PlanContext& ctx, const Sizes& n) const {
    GemmStep g;
    g.kernel = &kernel_;
    g.m = n.batch * n.sequence;
    g.n = n.total();
    g.k = g.lda = ctx.shape(kX)[2];
    g.b_form = packed_ ? GemmB::packed : GemmB::dense;
    g.b_k = g.n;
    g.b_n = 1;
    const int parts = ctx.parts_for(gemm_f32_prepare(g));
    if (ctx.has_input(kBias))
      check(ctx.shape(kBias) == Shape{g.n}, "bias is ", ctx.shape(kBias), ", needed: ", Shape{g.n});
    const Operand y = ctx.scratch(static_cast<size_t>(g.m * g.n) * sizeof(float));
    if (g.m * g.n == 0) return y;
    const auto scratch = static_cast<size_t>(gemm_f32_scratch(g, parts)) * sizeof(float);
    ctx.step(kernel_.name, gemm_f32_step, g,
             {ctx.in(kX), packed_ ? ctx.address(packed_) : ctx.in(kWeights), ctx.in(kBias), kNoOperand, y,
              scratch ? ctx.scratch(scratch) : kNoOperand},
             parts, 2.0 * static_cast<double>(g.m) * static_cast<double>(g.n) * static_cast<double>(g.k));
    return y;
  }

  // present = past then new, [2, batch, heads, total, size]; attention reads it.
  static void remember(PlanContext& ctx, AttentionStep& p, HeadView& k, Operand& k_data, HeadView& v, Operand& v_data) {
    check(k.size == v.size, "past and present need key and value heads of one size, given ", k.size, " and ", v.size);
    Shape past{2, k.batch, k.heads, 0, k.size};
    if (ctx.has_input(kPast)) {
      const Shape& given = ctx.shape(kPast);
      check(given.rank() == 5, "past is ", given, ", needed: rank 5");
      past[3] = given[3];
      check(given == past, "past is ", given, ", needed: ", past);
    }
    p.offset = past[3];
    const HeadView before = view_heads({k.batch, k.heads, past[3], k.size}, HeadLayout::bnsh);
    const Shape now{k.batch, k.heads, past[3] + k.sequence, k.size};
    const Operand y = ctx.output(1, DType::f32, {2, now[0], now[1], now[2], now[3]});
    const auto bytes = [](const Shape& s) { return s.elements() * static_cast<int64_t>(sizeof(float)); };
    const Operand past_k = ctx.in(kPast), past_v = past[3] > 0 ? past_k.plus(bytes(bnsh(before))) : past_k;
    add_concat(ctx, before, past_k, k, k_data, y);
    add_concat(ctx, before, past_v, v, v_data, y.plus(bytes(now)));
    k = v = view_heads(now, HeadLayout::bnsh);
    k_data = y;
    v_data = y.plus(bytes(now));
  }

  const Node& node_;
  const GemmF32& kernel_;
  const void* packed_ = nullptr;
};

}  // namespace

std::unique_ptr<Op> make_ms_attention(BuildContext& c) { return std::make_unique<MsAttention>(c); }

}  // namespace fi
