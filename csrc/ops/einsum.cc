// SPDX-License-Identifier: Apache-2.0
// Einsum in float32: operands are contracted from left to right, each contraction one batched matrix product on
// operands that were copied into its layout where their own does not serve. Other types run through the fallback.
#include <algorithm>

#include "csrc/ops/copy_step.h"
#include "csrc/ops/einsum_equation.h"
#include "kernels/gemm/gemm.h"

namespace fi {
namespace {

// An operand seen through labels: the stride of each label in bytes, 0 where it has none.
struct View {
  Operand data;
  std::vector<int64_t> stride;
  std::vector<char> has;  // which labels it varies over
};

class Contraction {
 public:
  Contraction(PlanContext& ctx, const EinsumEquation& e)
      : ctx_(ctx), e_(e), labels_(static_cast<int>(e.extent.size())) {}

  View view(int input) {
    const Shape strides = strides_of(ctx_.shape(input));
    View v = empty_view(ctx_.in(input));
    const std::vector<int>& term = e_.terms[input];
    for (size_t k = 0; k < term.size(); ++k) {
      if (ctx_.shape(input)[static_cast<int>(k)] == 1) continue;
      v.stride[term[k]] += strides[static_cast<int>(k)] * kUnit;  // a label that occurs twice walks the diagonal
      v.has[term[k]] = 1;
    }
    return v;
  }
  View one() {
    static constexpr float kOne = 1;
    return empty_view(ctx_.address(&kOne));
  }

  // Sums a·b over every label that is not kept. The result goes straight to y if that has its layout.
  View multiply(const View& a, const View& b, const std::vector<int>& kept, const Operand* y) {
    std::vector<int> batch, m, n, k;
    for (int l : kept) (a.has[l] && b.has[l] ? batch : b.has[l] ? n : m).push_back(l);
    for (int l = 0; l < labels_; ++l)
      if ((a.has[l] || b.has[l]) && std::find(kept.begin(), kept.end(), l) == kept.end()) k.push_back(l);
    const View left = dense(a, {batch, m, k});
    const bool turned = in_place(b, {batch, n, k});
    const View right = turned ? b : dense(b, {batch, k, n});
    View result = empty_view({});
    lay_out(result, {batch, m, n});
    written_ = y && copy_of(result, e_.output).rank == 0;
    result.data = written_ ? *y : ctx_.scratch(static_cast<size_t>(size_of_all({batch, m, n})) * kUnit);
    product(left.data, right.data, result.data, turned, size_of_all({batch}), size_of_all({m}), size_of_all({n}),
            size_of_all({k}));
    return result;
  }

  void copy_out(const View& v, Operand y) {
    if (!written_) add_copy(ctx_, copy_of(v, e_.output), v.data, y);
  }

 private:
  static constexpr int64_t kUnit = sizeof(float);
  using Groups = std::initializer_list<std::vector<int>>;

  View empty_view(Operand data) const {
    return {data, std::vector<int64_t>(labels_, 0), std::vector<char>(labels_, 0)};
  }
  int64_t size_of_all(Groups groups) const {
    Shape s;
    int64_t n = 1;
    for (const auto& g : groups)
      for (int l : g) n = Shape{n, e_.extent[l]}.elements();
    return n;
  }
  // Row-major strides in the order of the groups; returns them as one list.
  std::vector<int> lay_out(View& v, Groups groups) const {
    std::vector<int> order;
    for (const auto& g : groups) order.insert(order.end(), g.begin(), g.end());
    int64_t step = kUnit;
    for (size_t i = order.size(); i-- > 0;) {
      v.stride[order[i]] = step;
      v.has[order[i]] = 1;
      step *= std::max<int64_t>(e_.extent[order[i]], 1);
    }
    return order;
  }
  StridedCopy copy_of(const View& v, const std::vector<int>& order) const {
    View target = empty_view({});
    lay_out(target, {order});
    StridedCopy copy(kUnit);
    for (int l : order) copy.axis(e_.extent[l], v.stride[l], target.stride[l]);
    copy.finish();
    return copy;
  }
  bool in_place(const View& v, Groups groups) const {
    std::vector<int> order;
    for (const auto& g : groups) order.insert(order.end(), g.begin(), g.end());
    return copy_of(v, order).rank == 0;
  }
  // The view itself if its memory already is in that order, else a copy.
  View dense(const View& v, Groups groups) {
    View target = empty_view(v.data);
    const std::vector<int> order = lay_out(target, groups);
    const StridedCopy copy = copy_of(v, order);
    if (copy.rank == 0 || copy.bytes() == 0) return target;
    target.data = ctx_.scratch(static_cast<size_t>(copy.bytes()));
    add_copy(ctx_, copy, v.data, target.data);
    return target;
  }
  void product(Operand a, Operand b, Operand y, bool turned, int64_t batch, int64_t m, int64_t n, int64_t k) {
    if (batch * m * n == 0) return;
    GemmStep p;
    p.kernel = &gemm_f32(ctx_.isa());
    p.b_form = GemmB::dense;
    p.m = m;
    p.n = n;
    p.k = p.lda = k;
    p.b_k = turned ? 1 : n;
    p.b_n = turned ? k : 1;
    p.batch_rank = 1;
    p.batch[0] = batch;
    p.a_batch[0] = m * k;
    p.b_batch[0] = k * n;
    const int parts = ctx_.parts_for(gemm_f32_prepare(p));
    const int64_t room = gemm_f32_scratch(p, parts);
    const Operand none{0, 0};
    ctx_.step(p.kernel->name, gemm_f32_step, p,
              {a, b, none, none, y, room ? ctx_.scratch(static_cast<size_t>(room) * sizeof(float)) : none}, parts,
              2.0 * double(batch) * double(m) * double(n) * double(k));
  }

  PlanContext& ctx_;
  const EinsumEquation& e_;
  int labels_;
  bool written_ = false;
};

// Labels of a product that the output, or an operand from `next` on, still needs; the output's first, in its order.
std::vector<int> still_needed(const EinsumEquation& e, const View& a, const View& b, size_t next) {
  std::vector<int> kept;
  auto keep = [&](int l) {
    if ((a.has[l] || b.has[l]) && std::find(kept.begin(), kept.end(), l) == kept.end()) kept.push_back(l);
  };
  for (int l : e.output) keep(l);
  for (size_t i = next; i < e.terms.size(); ++i)
    for (int l : e.terms[i]) keep(l);
  return kept;
}

void plan_einsum(PlanContext& ctx, const Node& node) {
  const int n = ctx.n_inputs();
  std::vector<Shape> shapes;
  for (int i = 0; i < n; ++i) {
    check(ctx.dtype(i) == ctx.dtype(0), "inputs are ", ctx.input(0), " and ", ctx.input(i), ": one type is needed");
    shapes.push_back(ctx.shape(i));
  }
  const EinsumEquation e = parse_einsum(node.attributes.s("equation"), shapes);
  if (ctx.dtype(0) != DType::f32) ctx.not_native(words("Einsum of ", name_of(ctx.dtype(0))));
  Shape out;
  for (int l : e.output) out.push(e.extent[l]);
  const Operand y = ctx.output(0, DType::f32, out);
  Contraction c(ctx, e);
  try {
    View acc = c.view(0);
    bool sums = false;  // a single operand that is only rearranged needs no product
    for (int l = 0; l < static_cast<int>(e.extent.size()); ++l)
      sums |= acc.has[l] && std::find(e.output.begin(), e.output.end(), l) == e.output.end();
    if (n == 1 && sums) acc = c.multiply(acc, c.one(), still_needed(e, acc, acc, 1), &y);
    for (int i = 1; i < n; ++i) {
      const View next = c.view(i);
      acc = c.multiply(acc, next, still_needed(e, acc, next, static_cast<size_t>(i) + 1), i + 1 == n ? &y : nullptr);
    }
    c.copy_out(acc, y);
  } catch (const CopyTooDeep& deep) {
    ctx.not_native(deep.what());
  }
}

}  // namespace

std::unique_ptr<Op> make_einsum(BuildContext& c) { return make_plain<plan_einsum>(c); }

}  // namespace fi
