// SPDX-License-Identifier: Apache-2.0
// NonZero and Compress: the output's extent is a count over the data, so they run eagerly.
#include "csrc/ops/op.h"

namespace fi {
namespace {

// The bits that make a number non-zero: all but the sign of a float.
uint64_t significant_bits(DType t) {
  const int bits = 8 * static_cast<int>(size_of(t));
  const bool is_float = t == DType::f32 || t == DType::f64 || t == DType::f16 || t == DType::bf16;
  return (bits == 64 ? ~uint64_t{0} : (uint64_t{1} << bits) - 1) >> (is_float ? 1 : 0);
}

template <class T>
std::vector<int64_t> positions(const T* x, int64_t n, T mask) {
  std::vector<int64_t> found;
  for (int64_t i = 0; i < n; ++i)
    if (x[i] & mask) found.push_back(i);
  return found;
}

std::vector<int64_t> nonzero_positions(const Tensor& x) {
  const int64_t n = x.desc.elements();
  const uint64_t mask = significant_bits(x.desc.dtype);
  switch (size_of(x.desc.dtype)) {
    case 1:
      return positions(x.as<uint8_t>(), n, static_cast<uint8_t>(mask));
    case 2:
      return positions(x.as<uint16_t>(), n, static_cast<uint16_t>(mask));
    case 4:
      return positions(x.as<uint32_t>(), n, static_cast<uint32_t>(mask));
    default:
      return positions(x.as<uint64_t>(), n, mask);
  }
}

struct NonZero final : Op {
  void plan(PlanContext& ctx) const override {
    const DType t = ctx.dtype(0);
    if (!is_integer(t) && t != DType::boolean && t != DType::f32 && t != DType::f64 && t != DType::f16 &&
        t != DType::bf16)
      ctx.not_native(words("NonZero of ", name_of(t)));
    ctx.eager();
  }
  void run_eager(EagerContext& ctx) const override {
    const Shape& in = ctx.input(0).desc.shape;
    const std::vector<int64_t> found = nonzero_positions(ctx.input(0));
    const int64_t n = static_cast<int64_t>(found.size());
    auto* y = static_cast<int64_t*>(ctx.allocate(0, DType::s64, Shape{in.rank(), n}).data);
    for (int64_t j = 0; j < n; ++j)
      for (int64_t k = in.rank() - 1, rest = found[j]; k >= 0; rest /= in[k], --k) y[k * n + j] = rest % in[k];
  }
};

struct Compress final : Op {
  const Node& node;
  explicit Compress(const Node& n) : node(n) {}
  void plan(PlanContext& ctx) const override {
    check(ctx.dtype(1) == DType::boolean && ctx.shape(1).rank() == 1, "condition is ", ctx.input(1),
          ", needed: bool[n]");
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
    const std::vector<int64_t> kept = nonzero_positions(ctx.input(1));
    check(kept.empty() || kept.back() < in[axis], "condition selects position ", kept.empty() ? 0 : kept.back(),
          " of an axis of ", in[axis]);
    Shape out = in;
    out[axis] = static_cast<int64_t>(kept.size());
    const int64_t row = in.elements(axis + 1, in.rank()) * static_cast<int64_t>(size_of(x.desc.dtype));
    auto* y = static_cast<char*>(ctx.allocate(0, x.desc.dtype, out).data);
    for (int64_t o = 0; o < in.elements(0, axis); ++o)
      for (int64_t i : kept) {
        std::memcpy(y, x.as<char>() + (o * in[axis] + i) * row, row);
        y += row;
      }
  }
};

}  // namespace

std::unique_ptr<Op> make_nonzero(BuildContext&) { return std::make_unique<NonZero>(); }
std::unique_ptr<Op> make_compress(BuildContext& c) { return std::make_unique<Compress>(c.node); }

}  // namespace fi
