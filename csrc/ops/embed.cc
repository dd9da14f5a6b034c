// SPDX-License-Identifier: Apache-2.0
// com.microsoft EmbedLayerNormalization: word + position + segment embedding of every token, then its layer norm.
#include "csrc/ops/op.h"
#include "kernels/norm/norm.h"

namespace fi {
namespace {

enum Input { kIds, kSegments, kWords, kPositions, kSegmentTable, kScale, kBias, kMask, kPositionIds };

struct Embedding {
  int64_t tokens, length, hidden, words, positions, segments;
  bool shared_positions;  // one row of position ids for all sequences
};

Status add_row(const float* table, int64_t rows, int64_t id, int64_t n, bool first, float* y) {
  if (id < 0 || id >= rows) return bad_index(id, 0, rows);
  const float* x = table + id * n;
  for (int64_t i = 0; i < n; ++i) y[i] = first ? x[i] : y[i] + x[i];
  return Status::ok;
}

// y[t] = words[ids[t]] + positions[position(t)] + segments[segment_ids[t]].
// args: ids, segment ids (null: 0), words, positions, segments (null: none), position ids (null: place in the
// sequence), y.
Status embed(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const Embedding*>(params);
  const auto ids = [&](int a) { return static_cast<const int32_t*>(args[a]); };
  const auto table = [&](int a) { return static_cast<const float*>(args[a]); };
  const Range r = part_of(p.tokens, part, parts);
  for (int64_t t = r.begin; t < r.end; ++t) {
    float* y = static_cast<float*>(args[6]) + t * p.hidden;
    const int64_t place = t % p.length;
    const int64_t position = ids(5) ? ids(5)[p.shared_positions ? place : t] : place;
    Status s = add_row(table(2), p.words, ids(0)[t], p.hidden, true, y);
    if (s == Status::ok) s = add_row(table(3), p.positions, position, p.hidden, false, y);
    if (s == Status::ok && table(4)) s = add_row(table(4), p.segments, ids(1) ? ids(1)[t] : 0, p.hidden, false, y);
    if (s != Status::ok) return s;
  }
  return Status::ok;
}

struct MaskCount {
  int64_t batch, length;
};
// The number of ones in every row of the mask; without a mask 0. args: mask, y.
Status count_mask(const void* params, void* const* args, int, int) {
  const auto& p = *static_cast<const MaskCount*>(params);
  const auto* mask = static_cast<const int32_t*>(args[0]);
  for (int64_t b = 0; b < p.batch; ++b) {
    int32_t n = 0;
    for (int64_t i = 0; mask && i < p.length; ++i) n += mask[b * p.length + i] == 1;
    static_cast<int32_t*>(args[1])[b] = n;
  }
  return Status::ok;
}

void check_operands(PlanContext& ctx, const Shape& ids, int64_t hidden) {
  check(ids.rank() == 2, "input_ids are ", ctx.input(kIds), ", needed: int32 [batch, length]");
  for (int i : {kIds, kSegments, kMask})
    if (ctx.has_input(i))
      check(ctx.dtype(i) == DType::s32 && ctx.shape(i) == ids, "input ", i, " is ", ctx.input(i), ", needed: int32 ",
            ids);
  for (int i : {kWords, kPositions, kSegmentTable})
    if (ctx.has_input(i))
      check(ctx.dtype(i) == DType::f32 && ctx.shape(i).rank() == 2 && ctx.shape(i)[1] == hidden, "input ", i, " is ",
            ctx.input(i), ", needed: float32 [n, ", hidden, "]");
  for (int i : {kScale, kBias})
    check(ctx.dtype(i) == DType::f32 && ctx.shape(i) == Shape{hidden}, "input ", i, " is ", ctx.input(i),
          ", needed: float32 [", hidden, "]");
  if (ctx.has_input(kPositionIds))
    check(ctx.dtype(kPositionIds) == DType::s32 &&
              (ctx.shape(kPositionIds) == ids || ctx.shape(kPositionIds) == Shape{1, ids[1]}),
          "position_ids are ", ctx.input(kPositionIds), ", needed: int32 ", ids);
}

void plan_embed_layer_norm(PlanContext& ctx, const Node& node) {
  const Shape ids = ctx.shape(kIds), words = ctx.shape(kWords);
  if (ctx.dtype(kWords) != DType::f32) ctx.not_native("embeddings that are not float32");
  check(words.rank() == 2, "word_embedding is ", ctx.input(kWords), ", needed: [n, hidden]");
  const int64_t hidden = words[1];
  check_operands(ctx, ids, hidden);
  const Shape out{ids[0], ids[1], hidden};
  const Operand none{0, 0}, y = ctx.output(0, DType::f32, out);
  const Operand sum = ctx.wants(2) ? ctx.output(2, DType::f32, out) : y;
  if (ctx.wants(1)) {
    const Operand counts = ctx.output(1, DType::s32, Shape{ids[0]});
    ctx.step("count_mask", count_mask, MaskCount{ids[0], ids[1]}, {ctx.in(kMask), counts});
  }
  const int64_t tokens = ids.elements();
  if (tokens == 0 || hidden == 0) return;
  const Embedding p{tokens,
                    ids[1],
                    hidden,
                    words[0],
                    ctx.shape(kPositions)[0],
                    ctx.has_input(kSegmentTable) ? ctx.shape(kSegmentTable)[0] : 0,
                    ctx.has_input(kPositionIds) && ctx.shape(kPositionIds)[0] == 1};
  const int parts = ctx.parts_for(double(tokens) * double(hidden) / 4);
  ctx.step("embed", embed, p,
           {ctx.in(kIds), ctx.in(kSegments), ctx.in(kWords), ctx.in(kPositions), ctx.in(kSegmentTable),
            ctx.in(kPositionIds), sum},
           parts);
  const NormKernel norm = select_row_norm(ctx.isa());
  const RowNormParams n{tokens, hidden, tokens, node.attributes.f("epsilon", 1e-12f), false, false, false};
  ctx.step(norm.name, norm.run, n, {sum, none, none, ctx.in(kScale), ctx.in(kBias), y, none, none, none}, parts);
}

}  // namespace

std::unique_ptr<Op> make_embed_layer_norm(BuildContext& c) { return make_plain<plan_embed_layer_norm>(c); }

}  // namespace fi
