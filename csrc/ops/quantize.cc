// SPDX-License-Identifier: Apache-2.0
// QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear and the QLinear forms of elementwise operators: programs of
// kernels/pointwise, which convert small integers at their edges.
#include "csrc/ops/copy_step.h"
#include "csrc/ops/pointwise_step.h"
#include "csrc/ops/requantize.h"
#include "kernels/softmax/softmax.h"

namespace fi {
namespace {

using Builder = TileProgramBuilder;

bool is_small(DType t) {
  switch (t) {
    case DType::u8:
    case DType::s8:
    case DType::u16:
    case DType::s16:
    case DType::u4:
    case DType::s4:
    case DType::u2:
    case DType::s2:
      return true;
    default:
      return false;
  }
}

// round(x / scale) + zero. zero −1: none.
int quantized(Builder& b, int x, int scale, int zero) {
  return b.op("quantize", x, scale, zero < 0 ? b.immediate(0) : zero);
}
int dequantized(Builder& b, int x, int scale, int zero) {
  return b.op("mul", zero < 0 ? x : b.op("sub", x, zero), scale);
}
const Builder& linear_program(bool quantize, bool with_zero) {
  static const auto make = [](bool quantize, bool with_zero) {
    Builder b(with_zero ? 3 : 2);
    b.output((quantize ? quantized : dequantized)(b, 0, 1, with_zero ? 2 : -1));
    b.finish();
    return b;
  };
  static const Builder programs[] = {make(false, false), make(false, true), make(true, false), make(true, true)};
  return programs[2 * quantize + with_zero];
}

// How scale and zero point lie over x: the shapes to broadcast, with x's axis split where they are blocked.
struct Layout {
  Shape x, parameter;
};
Layout layout_of(PlanContext& ctx, const Node& node, const Shape& x, const Shape& scale) {
  if (scale.elements() == 1 && scale.rank() <= 1) return {x, Shape{}};
  const int axis = normalize_axis(node.attributes.i("axis", 1), x.rank());
  const int64_t block = node.attributes.i("block_size", 0);
  if (scale.rank() == 1 && block == 0) {
    check(scale[0] == x[axis], node.op, ": ", scale[0], " scales for axis ", axis, " of ", x);
    Shape along{scale[0]};
    for (int d = axis + 1; d < x.rank(); ++d) along.push(1);
    return {x, along};
  }
  check(block > 0 && scale.rank() == x.rank(), node.op, ": scale ", scale, " for ", x, " with block_size ", block);
  for (int d = 0; d < x.rank(); ++d)
    check(scale[d] == (d == axis ? (x[d] + block - 1) / block : x[d]), node.op, ": scale ", scale, " for ", x,
          " with block_size ", block);
  if (x[axis] % block != 0) ctx.not_native(words("axis of ", x[axis], " in blocks of ", block));
  Layout l{x, scale};
  l.x[axis] = x[axis] / block;
  l.x.insert(axis + 1, block);
  l.parameter.insert(axis + 1, 1);
  return l;
}

DType quantized_type(PlanContext& ctx, const Node& node) {
  if (ctx.has_input(2)) return ctx.dtype(2);
  const auto named = static_cast<DType>(node.attributes.i("output_dtype", 0));
  return named == DType::none ? DType::u8 : named;
}

// x, scale, zero? → y.
void plan_linear(PlanContext& ctx, const Node& node) {
  const bool quantize = node.op == "QuantizeLinear", with_zero = ctx.has_input(2);
  const Desc x = ctx.input(0);
  const DType small = quantize ? quantized_type(ctx, node) : x.dtype;
  const auto named = static_cast<DType>(node.attributes.i("output_dtype", 0));
  const DType to = quantize ? small : named == DType::none ? ctx.dtype(1) : named;
  if (!is_small(small) && (quantize || small != DType::s32)) ctx.not_native(words(node.op, " with ", name_of(small)));
  if (quantize && node.attributes.i("precision", 1) > 1) ctx.not_native("precision other than float32");
  check(!with_zero || quantize || ctx.dtype(2) == small, "the zero point is ", ctx.input(with_zero ? 2 : 0),
        ", needed: ", name_of(small));
  check(!with_zero || ctx.input(2).elements() == ctx.input(1).elements(), "the zero point is ",
        ctx.input(with_zero ? 2 : 1), " for the scale ", ctx.input(1));
  const Layout l = layout_of(ctx, node, x.shape, ctx.shape(1));
  PointwiseArg args[3] = {{ctx.in(0), {x.dtype, l.x}}, {ctx.in(1), {ctx.dtype(1), l.parameter}}};
  if (with_zero) args[2] = {ctx.in(2), {ctx.dtype(2), l.parameter}};
  const PointwiseArg y{ctx.output(0, to, x.shape), {to, l.x}};
  add_pointwise(ctx, linear_program(quantize, with_zero), std::span<const PointwiseArg>(args, with_zero ? 3 : 2),
                std::span<const PointwiseArg>(&y, 1));
}

void plan_dynamic(PlanContext& ctx, const Node&) {
  const Desc x = ctx.input(0);
  check(x.dtype == DType::f32, "DynamicQuantizeLinear of ", x, "; needed: float32");
  const Operand y = ctx.output(0, DType::u8, x.shape);
  add_dynamic_quantization(ctx, ctx.in(0), x.elements(), y, ctx.output(1, DType::f32, Shape{}),
                           ctx.output(2, DType::u8, Shape{}));
}

// The QLinear elementwise operators: dequantize, compute, quantize in one program.
class QLinear final : public Op {
 public:
  explicit QLinear(BuildContext& ctx)
      : node_(ctx.node), program_(count(ctx)), operands_(node_.op == "QLinearAdd" || node_.op == "QLinearMul" ? 2 : 1) {
    const bool two = operands_ == 2;
    check_model(ctx.n_inputs() >= 3 * operands_ + 1, node_.op, " has ", node_.inputs.size(), " inputs");
    const auto value = [&](int i) { return number(ctx, i); };
    int v = dequantized(program_, value(0), value(1), value(2));
    if (two)
      v = program_.op(node_.op == "QLinearAdd" ? "add" : "mul", v, dequantized(program_, value(3), value(4), value(5)));
    if (node_.op == "QLinearSigmoid") v = program_.op("sigmoid", v);
    if (node_.op == "QLinearLeakyRelu")
      v = program_.op("leaky_relu", v, program_.immediate(node_.attributes.f("alpha", 0.01f)));
    program_.output(quantized(program_, v, value(3 * operands_), value(3 * operands_ + 1)));
    program_.finish();
    for (int i = 0; i < ctx.n_inputs(); ++i)
      if (ctx.has_input(i)) which_.push_back(i);
  }

  void plan(PlanContext& ctx) const override {
    PointwiseArg args[kTileInputs];
    Shape shape = ctx.shape(0);
    for (size_t k = 0; k < which_.size(); ++k) {
      Desc d = ctx.input(which_[k]);
      const bool tensor = which_[k] % 3 == 0 && which_[k] / 3 < operands_;
      if (!tensor) {
        check(d.elements() == 1, node_.op, ": input ", which_[k], " is ", d, ", needed: one number");
        d.shape = Shape{};
      }
      shape = broadcast(shape, d.shape);
      args[k] = {ctx.in(which_[k]), d};
    }
    const Desc out{ctx.dtype(0), shape};
    if (!is_small(out.dtype)) ctx.not_native(words(node_.op, " of ", name_of(out.dtype)));
    const PointwiseArg y{ctx.output(0, out.dtype, shape), out};
    add_pointwise(ctx, program_, std::span<const PointwiseArg>(args, which_.size()),
                  std::span<const PointwiseArg>(&y, 1));
  }

 private:
  static int count(BuildContext& ctx) {
    int n = 0;
    for (int i = 0; i < ctx.n_inputs(); ++i) n += ctx.has_input(i);
    return n;
  }
  // The program's number of node input i, −1 when it is absent.
  static int number(BuildContext& ctx, int i) {
    if (!ctx.has_input(i)) return -1;
    int n = 0;
    for (int k = 0; k < i; ++k) n += ctx.has_input(k);
    return n;
  }

  const Node& node_;
  Builder program_;
  int operands_;  // tensors, each with scale and zero point
  std::vector<int> which_;
};

PointwiseArg one_number(PlanContext& ctx, const Node& node, int i) {
  check(ctx.input(i).elements() == 1, node.op, ": input ", i, " is ", ctx.input(i), ", needed: one number");
  return {ctx.in(i), {ctx.dtype(i), Shape{}}};
}

// X, X_scale, X_zero, Y_scale, Y_zero
void plan_qlinear_softmax(PlanContext& ctx, const Node& node) {
  const Desc x = ctx.input(0);
  if (!is_small(x.dtype)) ctx.not_native(words(node.op, " of ", name_of(x.dtype)));
  check(x.shape.rank() > 0, node.op, " needs an axis; the input is a scalar");
  const int axis = normalize_axis(node.attributes.i("axis", -1), x.shape.rank());
  // Before opset 13 the axes from `axis` on are one.
  const bool joined = node.attributes.i("opset", 13) < 13;
  const SoftmaxParams p{x.shape.elements(0, axis), joined ? x.shape.elements(axis, x.shape.rank()) : x.shape[axis],
                        joined ? 1 : x.shape.elements(axis + 1, x.shape.rank()), false};
  const Desc real{DType::f32, x.shape};
  const PointwiseArg work{ctx.scratch(real.bytes()), real};
  const PointwiseArg in[] = {
      {ctx.in(0), x}, one_number(ctx, node, 1), ctx.has_input(2) ? one_number(ctx, node, 2) : work};
  const PointwiseArg out[] = {work, one_number(ctx, node, 3), ctx.has_input(4) ? one_number(ctx, node, 4) : work};
  const PointwiseArg y{ctx.output(0, x.dtype, x.shape), x};
  if (x.elements() == 0) return;
  const auto used = [&](const PointwiseArg* a, int zero) {
    return std::span<const PointwiseArg>(a, ctx.has_input(zero) ? 3 : 2);
  };
  add_pointwise(ctx, linear_program(false, ctx.has_input(2)), used(in, 2), std::span<const PointwiseArg>(&work, 1));
  const SoftmaxKernel kernel = select_softmax(ctx.isa());
  ctx.step(kernel.name, kernel.run, p, {work.data, work.data}, ctx.parts_for(static_cast<double>(x.elements())));
  add_pointwise(ctx, linear_program(true, ctx.has_input(4)), used(out, 4), std::span<const PointwiseArg>(&y, 1));
}

// Y_scale, Y_zero, then X, X_scale, X_zero per operand.
void plan_qlinear_concat(PlanContext& ctx, const Node& node) {
  static const Builder requantize = [] {
    Builder b(5);
    b.output(quantized(b, dequantized(b, 0, 1, 2), 3, 4));
    b.finish();
    return b;
  }();
  const int operands = (ctx.n_inputs() - 2) / 3;
  check_model(operands >= 1 && ctx.n_inputs() == 2 + 3 * operands, node.op, " has ", ctx.n_inputs(), " inputs");
  Shape shape = ctx.shape(2);
  const int axis = normalize_axis(node.attributes.i("axis"), shape.rank());
  for (int k = 1; k < operands; ++k) {
    Shape s = ctx.shape(2 + 3 * k);
    check(s.rank() == shape.rank(), node.op, ": ", s, " after ", shape);
    const int64_t extent = s[axis];
    s[axis] = shape[axis];
    check(s == shape, node.op, " over axis ", axis, ": ", ctx.shape(2 + 3 * k), " after ", shape);
    shape[axis] += extent;
  }
  const DType type = ctx.dtype(1);
  if (!is_small(type)) ctx.not_native(words(node.op, " of ", name_of(type)));
  const Operand y = ctx.output(0, type, shape);
  const int64_t inner = shape.elements(axis + 1, shape.rank()) * static_cast<int64_t>(size_of(type));
  int64_t done = 0;
  for (int k = 0; k < operands; ++k) {
    const int at = 2 + 3 * k;
    const Desc x = ctx.input(at);
    const Desc to{type, x.shape};
    const PointwiseArg in[] = {{ctx.in(at), x},
                               one_number(ctx, node, at + 1),
                               one_number(ctx, node, at + 2),
                               one_number(ctx, node, 0),
                               one_number(ctx, node, 1)};
    const PointwiseArg work{ctx.scratch(to.bytes()), to};
    add_pointwise(ctx, requantize, in, std::span<const PointwiseArg>(&work, 1));
    const int64_t bytes = x.shape[axis] * inner;
    if (x.elements() > 0)
      add_row_copy(ctx, x.shape.elements(0, axis), bytes, bytes, shape[axis] * inner, work.data, y.plus(done));
    done += bytes;
  }
}

}  // namespace

std::unique_ptr<Op> make_linear_quantization(BuildContext& c) { return make_plain<plan_linear>(c); }
std::unique_ptr<Op> make_dynamic_quantize(BuildContext& c) { return make_plain<plan_dynamic>(c); }
std::unique_ptr<Op> make_qlinear(BuildContext& c) { return std::make_unique<QLinear>(c); }
std::unique_ptr<Op> make_qlinear_softmax(BuildContext& c) { return make_plain<plan_qlinear_softmax>(c); }
std::unique_ptr<Op> make_qlinear_concat(BuildContext& c) { return make_plain<plan_qlinear_concat>(c); }

}  // namespace fi
