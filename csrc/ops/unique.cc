// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <numeric>

#include "csrc/ops/op.h"
#include "kernels/move/order_key.h"

namespace fi {
namespace {

// The input as `count` slices along the axis (or elements, without one), each a list of keys.
struct Slices {
  int64_t count, outer, inner;
  std::vector<uint64_t> keys;  // [count][outer·inner]
  int64_t length() const { return outer * inner; }
  std::strong_ordering compare(int64_t a, int64_t b) const {
    const uint64_t *x = keys.data() + a * length(), *y = keys.data() + b * length();
    return std::lexicographical_compare_three_way(x, x + length(), y, y + length());
  }
};

Slices slices_of(const Tensor& x, int64_t count, int64_t outer, int64_t inner) {
  Slices s{count, outer, inner, std::vector<uint64_t>(count * outer * inner)};
  with_ordered(x.desc.dtype, x.data, [&](const auto* p) {
    for (int64_t o = 0; o < outer; ++o)
      for (int64_t c = 0; c < count; ++c)
        for (int64_t i = 0; i < inner; ++i) s.keys[(c * outer + o) * inner + i] = order_key(*p++);
  });
  return s;
}

struct Groups {
  std::vector<int64_t> first, inverse, counts;
};

Groups group(const Slices& s, bool sorted) {
  std::vector<int64_t> order(s.count);
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    const auto c = s.compare(a, b);
    return c != 0 ? c < 0 : a < b;
  });
  Groups g;
  g.inverse.resize(s.count);
  for (int64_t j = 0; j < s.count; ++j) {
    if (j == 0 || s.compare(order[j - 1], order[j]) != 0) {
      g.first.push_back(order[j]);
      g.counts.push_back(0);
    }
    ++g.counts.back();
    g.inverse[order[j]] = static_cast<int64_t>(g.first.size()) - 1;
  }
  if (sorted) return g;
  std::vector<int64_t> rank(g.first.size()), place(g.first.size());
  std::iota(rank.begin(), rank.end(), 0);
  std::sort(rank.begin(), rank.end(), [&](int64_t a, int64_t b) { return g.first[a] < g.first[b]; });
  Groups by_appearance;
  for (size_t j = 0; j < rank.size(); ++j) {
    place[rank[j]] = static_cast<int64_t>(j);
    by_appearance.first.push_back(g.first[rank[j]]);
    by_appearance.counts.push_back(g.counts[rank[j]]);
  }
  for (int64_t i : g.inverse) by_appearance.inverse.push_back(place[i]);
  return by_appearance;
}

void give(EagerContext& ctx, int out, const std::vector<int64_t>& list) {
  const int64_t n = static_cast<int64_t>(list.size());
  Tensor& t = ctx.allocate(out, DType::s64, Shape{n});
  std::copy(list.begin(), list.end(), static_cast<int64_t*>(t.data));
}

struct Unique final : Op {
  const Node& node;
  explicit Unique(const Node& n) : node(n) {}
  void plan(PlanContext& ctx) const override {
    if (!is_ordered(ctx.dtype(0))) ctx.not_native(words("Unique of ", name_of(ctx.dtype(0))));
    if (node.attributes.has("axis")) normalize_axis(node.attributes.i("axis"), ctx.shape(0).rank());
    ctx.eager();
  }
  void run_eager(EagerContext& ctx) const override {
    const Tensor& x = ctx.input(0);
    Shape in = x.desc.shape;
    int axis = 0;
    if (node.attributes.has("axis"))
      axis = normalize_axis(node.attributes.i("axis"), in.rank());
    else
      in = Shape{in.elements()};
    const Slices s = slices_of(x, in[axis], in.elements(0, axis), in.elements(axis + 1, in.rank()));
    const Groups g = group(s, node.attributes.i("sorted", 1) != 0);
    Shape out = in;
    out[axis] = static_cast<int64_t>(g.first.size());
    const int64_t row = s.inner * static_cast<int64_t>(size_of(x.desc.dtype));
    auto* y = static_cast<char*>(ctx.allocate(0, x.desc.dtype, out).data);
    for (int64_t o = 0; o < s.outer; ++o)
      for (int64_t i : g.first) {
        std::memcpy(y, x.as<char>() + (o * s.count + i) * row, row);
        y += row;
      }
    if (ctx.n_outputs() > 1) give(ctx, 1, g.first);
    if (ctx.n_outputs() > 2) give(ctx, 2, g.inverse);
    if (ctx.n_outputs() > 3) give(ctx, 3, g.counts);
  }
};

}  // namespace

std::unique_ptr<Op> make_unique_op(BuildContext& c) { return std::make_unique<Unique>(c.node); }

}  // namespace fi
