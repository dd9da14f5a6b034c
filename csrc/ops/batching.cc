// SPDX-License-Identifier: Apache-2.0
// fastinfer::PackedAttention and fastinfer::PackedReduce: what mixes tokens, one sequence at a time.
#include "kernels/batching/batching.h"

#include <algorithm>

#include "csrc/ops/attention_step.h"
#include "csrc/ops/typed_reduce.h"

namespace fi {
namespace {

int64_t bind_lengths(PlanContext& ctx, int i) {
  check(ctx.dtype(i) == DType::s64 && ctx.shape(i).rank() == 1, "the lengths are ", ctx.input(i),
        ", needed: int64 [sequences]");
  return ctx.shape(i)[0];
}

PackedMask parse_mask(const std::string& name) {
  if (name == "fixed") return PackedMask::fixed;
  if (name == "keys") return PackedMask::keys;
  if (name == "queries") return PackedMask::queries;
  check_model(name == "pairs", "unknown mask form '", name, "', needed: fixed, keys, queries or pairs");
  return PackedMask::pairs;
}

// [1, heads or 1, 1, n] (pairs and keys), [1, heads or 1, n, 1] (queries); leading ones may be left out.
void bind_packed_mask(PackedAttention& p, const Desc& mask, const std::string& form) {
  check(mask.dtype == DType::f32 || mask.dtype == DType::boolean, "the mask is ", mask, ", needed: float32 or bool");
  const int rank = mask.shape.rank();
  check(rank <= 4, "the mask is ", mask, ", needed: at most 4 axes");
  int64_t extent[4] = {1, 1, 1, 1};
  for (int i = 0; i < rank; ++i) extent[4 - rank + i] = mask.shape[i];
  p.mask = parse_mask(form);
  const bool queries = p.mask == PackedMask::queries;
  p.mask_count = extent[queries ? 2 : 3];
  const int64_t needed = p.mask == PackedMask::fixed ? 1 : p.mask == PackedMask::pairs ? p.mask_count : p.tokens;
  check(extent[0] == 1 && (extent[1] == 1 || extent[1] == p.each.heads) && extent[queries ? 3 : 2] == 1 &&
            p.mask_count == needed,
        "mask ", mask, " is no mask of the form '", form, "' over ", p.tokens, " tokens");
  p.each.mask = mask.dtype == DType::f32 ? AttentionMask::added : AttentionMask::kept;
  p.mask_head = extent[1] == 1 ? 0 : p.mask_count;
  p.mask_bytes = static_cast<int64_t>(size_of(mask.dtype));
}

// Scratch depends on the number of rows only through the choice between two forms.
int64_t scratch_floats(AttentionStep step, int64_t tokens, int parts) {
  step.sq = step.sk = tokens;
  const int64_t blocks = attention_scratch(step, parts);
  step.sq = step.sk = 1;
  return std::max(blocks, attention_scratch(step, parts));
}

// Q, K, V, lengths, mask?
void plan_packed_attention(PlanContext& ctx, const Node& node) {
  const DType type = attention_types(ctx, node);
  const Attributes& a = node.attributes;
  const HeadView q = view_heads(ctx.shape(0), parse_head_layout(a.s("q_layout", "BNSH")));
  const HeadView k = view_heads(ctx.shape(1), parse_head_layout(a.s("k_layout", "BNSH")));
  const HeadView v = view_heads(ctx.shape(2), parse_head_layout(a.s("v_layout", "BNSH")));
  const HeadLayout layout = parse_head_layout(a.s("o_layout", "BNSH"));
  check_model(q.at.e == 1 && v.at.e == 1 && layout != HeadLayout::bnhs, "only k may be laid out as BNHS");
  check(q.batch == 1 && q.sequence == k.sequence, "packed queries are ", ctx.shape(0), " and keys ", ctx.shape(1),
        ", needed: one batch entry and equal numbers of tokens");
  const Shape out =
      layout == HeadLayout::bnsh ? Shape{1, q.heads, q.sequence, v.size} : Shape{1, q.sequence, q.heads, v.size};
  PackedAttention p{};
  bind_heads(p.each, q, k, v, view_heads(out, layout));
  bind_types(p.each, ctx, node);
  p.each.scale = a.f("scale", 1.f);
  p.each.softcap = a.f("softcap", 0.f);
  p.each.zero_empty = a.i("zero_empty", 0) != 0;
  p.each.causal = a.i("causal", 0) != 0;
  p.sequences = bind_lengths(ctx, 3);
  p.tokens = q.sequence;
  if (ctx.has_input(4)) bind_packed_mask(p, ctx.input(4), a.s("mask_form"));
  const Operand y = ctx.output(0, type, out);
  if (out.elements() == 0) return;
  const AttentionKernel kernel = kernel_of(p.each, ctx.isa());
  p.run = kernel.run;
  // As if all sequences were equally long.
  const double mean = static_cast<double>(p.tokens) / static_cast<double>(std::max<int64_t>(p.sequences, 1));
  const double flops = attention_flops(p.each) * mean / static_cast<double>(p.tokens);
  const int parts =
      static_cast<int>(std::min<int64_t>(ctx.parts_for(flops / 24), std::max<int64_t>(p.each.kv_heads, 1)));
  const auto floats = static_cast<size_t>(scratch_floats(p.each, p.tokens, parts));
  ctx.step("packed_attention", packed_attention, p,
           {ctx.in(0), ctx.in(1), ctx.in(2), ctx.has_input(4) ? ctx.in(4) : kNoOperand, ctx.in(3), y,
            ctx.scratch(floats * sizeof(float))},
           parts, flops);
}

struct Reduction {
  const char* name;
  Fold fold;
  Finish finish;
};
constexpr Reduction kReductions[] = {{"sum", Fold::sum, Finish::none},
                                     {"mean", Fold::sum, Finish::mean},
                                     {"max", Fold::max, Finish::none},
                                     {"min", Fold::min, Finish::none}};

// X, lengths → Y: the axis of the tokens becomes that of the sequences.
void plan_packed_reduce(PlanContext& ctx, const Node& node) {
  const std::string name = node.attributes.s("reduction");
  const auto* row =
      std::find_if(std::begin(kReductions), std::end(kReductions), [&](const Reduction& r) { return name == r.name; });
  check_model(row != std::end(kReductions), "unknown reduction '", name, "', needed: sum, mean, max or min");
  const Desc x = ctx.input(0);
  const int axis = normalize_axis(node.attributes.i("axis"), x.shape.rank());
  const bool fast = x.dtype == DType::f32;
  if (!fast && x.dtype != DType::s32 && x.dtype != DType::s64) ctx.not_native(words("input 0 is ", name_of(x.dtype)));
  PackedReduce p{};
  p.run = fast ? select_reduce(ctx.isa()).run : typed_reduce(x.dtype);
  p.fold = row->fold;
  p.finish = row->finish;
  p.outer = x.shape.elements(0, axis);
  p.sequences = bind_lengths(ctx, 1);
  p.tokens = x.shape[axis];
  p.inner = x.shape.elements(axis + 1, x.shape.rank());
  p.bytes = static_cast<int64_t>(size_of(x.dtype));
  Shape out = x.shape;
  out[axis] = p.sequences;
  const Operand y = ctx.output(0, x.dtype, out);
  if (out.elements() == 0) return;
  ctx.step("packed_reduce", packed_reduce, p, {ctx.in(0), ctx.in(1), y},
           ctx.parts_for(static_cast<double>(x.elements()) * (fast ? 0.2 : 4)));
}

}  // namespace

std::unique_ptr<Op> make_packed_attention(BuildContext& c) { return make_plain<plan_packed_attention>(c); }
std::unique_ptr<Op> make_packed_reduce(BuildContext& c) { return make_plain<plan_packed_reduce>(c); }

}  // namespace fi
