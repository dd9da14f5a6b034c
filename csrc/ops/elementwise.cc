// SPDX-License-Identifier: Apache-2.0
// Elementwise operators. float32 (and 16-bit floats, rounded once) are programs of one or two pointwise operations;
// other types take the loops of typed_step.h.
#include <cmath>
#include <numeric>
#include <optional>

#include "csrc/ops/pointwise_step.h"
#include "csrc/ops/typed_step.h"

namespace fi {
namespace {

using Builder = TileProgramBuilder;

enum class Form { unary, binary, compare, variadic, pow, where, clip, logic, bias };

struct Recipe {
  const char* op;
  Form form;
  const char* tile;  // operation of tile_ops.inc, nullptr: no float program
  // Attributes that become immediates after the inputs, in this order; also alpha and beta of the typed loops.
  struct Parameter {
    const char* attribute;
    float fallback;
  } parameter[2] = {};
};

constexpr Recipe kRecipes[] = {
    {"Abs", Form::unary, "abs"},
    {"Neg", Form::unary, "neg"},
    {"Exp", Form::unary, "exp"},
    {"Log", Form::unary, "log"},
    {"Sqrt", Form::unary, "sqrt"},
    {"Reciprocal", Form::unary, "reciprocal"},
    {"Erf", Form::unary, "erf"},
    {"Tanh", Form::unary, "tanh"},
    {"Sigmoid", Form::unary, "sigmoid"},
    {"Relu", Form::unary, "relu"},
    {"Softplus", Form::unary, "softplus"},
    {"Softsign", Form::unary, "softsign"},
    {"HardSwish", Form::unary, "hard_swish"},
    {"Mish", Form::unary, "mish"},
    {"Floor", Form::unary, "floor"},
    {"Ceil", Form::unary, "ceil"},
    {"Round", Form::unary, "round"},
    {"Sign", Form::unary, "sign"},
    {"Sin", Form::unary, "sin"},
    {"Cos", Form::unary, "cos"},
    {"Tan", Form::unary, "_tan"},
    {"Asin", Form::unary, "_asin"},
    {"Acos", Form::unary, "_acos"},
    {"Atan", Form::unary, "_atan"},
    {"Sinh", Form::unary, "_sinh"},
    {"Cosh", Form::unary, "_cosh"},
    {"Asinh", Form::unary, "_asinh"},
    {"Acosh", Form::unary, "_acosh"},
    {"Atanh", Form::unary, "_atanh"},
    {"LeakyRelu", Form::unary, "leaky_relu", {{"alpha", 0.01f}}},
    {"Elu", Form::unary, "elu", {{"alpha", 1}}},
    {"Selu", Form::unary, "_selu", {{"alpha", 1.67326319217681884765625f}, {"gamma", 1.05070102214813232421875f}}},
    {"Celu", Form::unary, "_celu", {{"alpha", 1}}},
    {"ThresholdedRelu", Form::unary, "_thresholded_relu", {{"alpha", 1}}},
    {"HardSigmoid", Form::unary, "hard_sigmoid", {{"alpha", 0.2f}, {"beta", 0.5f}}},
    {"Shrink", Form::unary, "_shrink", {{"bias", 0}, {"lambd", 0.5f}}},
    {"Swish", Form::unary, "quick_gelu", {{"alpha", 1}}},
    {"QuickGelu", Form::unary, "quick_gelu", {{"alpha", 1.702f}}},
    {"IsNaN", Form::unary, "_is_nan"},
    {"IsInf", Form::unary, "_is_inf"},
    {"Not", Form::logic, "not"},
    {"And", Form::logic, "and"},
    {"Or", Form::logic, "or"},
    {"Xor", Form::logic, "_xor"},
    {"Gelu", Form::unary, "gelu"},
    {"BiasGelu", Form::bias, "gelu"},
    {"FastGelu", Form::bias, "gelu_tanh"},
    {"BitwiseNot", Form::unary, nullptr},
    {"Add", Form::binary, "add"},
    {"Sub", Form::binary, "sub"},
    {"Mul", Form::binary, "mul"},
    {"Div", Form::binary, "div"},
    {"PRelu", Form::binary, "leaky_relu"},
    {"Mod", Form::binary, nullptr},
    {"BitwiseAnd", Form::binary, nullptr},
    {"BitwiseOr", Form::binary, nullptr},
    {"BitwiseXor", Form::binary, nullptr},
    {"BitShift", Form::binary, nullptr},
    {"Equal", Form::compare, "equal"},
    {"Less", Form::compare, "less"},
    {"LessOrEqual", Form::compare, "less_equal"},
    {"Greater", Form::compare, "greater"},
    {"GreaterOrEqual", Form::compare, "greater_equal"},
    {"Sum", Form::variadic, "add"},
    {"Mean", Form::variadic, "add"},
    {"Max", Form::variadic, "max"},
    {"Min", Form::variadic, "min"},
    {"Pow", Form::pow, "pow"},
    {"Where", Form::where, "where"},
    {"Clip", Form::clip, "clip"},
};

const Recipe& recipe_of(const std::string& op) {
  for (const Recipe& r : kRecipes)
    if (op == r.op) return r;
  throw ModelError("no elementwise operator '" + op + "'");
}

template <class T>
double first_as(const Tensor& t) {
  return static_cast<double>(*t.as<T>());
}
// The value of a constant of one element, if its type is a number's.
std::optional<double> scalar_constant(BuildContext& ctx, int input) {
  const Desc* d = ctx.constant_desc(input);
  if (!d || d->elements() != 1 || d->shape.rank() > 1) return {};
  if (d->dtype != DType::f32 && d->dtype != DType::f64 && d->dtype != DType::s64 && d->dtype != DType::s32) return {};
  const Tensor* t = ctx.constant(input);
  if (!t) return {};
  switch (d->dtype) {
    case DType::f32:
      return first_as<float>(*t);
    case DType::f64:
      return first_as<double>(*t);
    case DType::s64:
      return first_as<int64_t>(*t);
    default:
      return first_as<int32_t>(*t);
  }
}

class Elementwise final : public Op {
 public:
  explicit Elementwise(BuildContext& ctx) : node_(ctx.node), recipe_(recipe_of(node_.op)) {
    for (int i = 0; i < ctx.n_inputs(); ++i)
      if (ctx.has_input(i)) which_.push_back(i);
    check_inputs();
    read_parameters();
    if (recipe_.tile && which_.size() <= kTileInputs) build(ctx);
  }

  void plan(PlanContext& ctx) const override {
    if (node_.op == "PRelu") {
      const Shape& x = ctx.shape(0);
      check(broadcast(x, ctx.shape(1)) == x, "slope ", ctx.shape(1), " does not broadcast to ", x);
    }
    if (recipe_.form == Form::clip)
      for (int i = 1; i < 3; ++i)
        check(!ctx.has_input(i) || ctx.input(i).elements() == 1, "Clip takes one number as its bound, not ",
              ctx.has_input(i) ? ctx.shape(i) : Shape{});
    const DType type = ctx.dtype(recipe_.form == Form::where ? 1 : 0);
    const bool float_type = type == DType::f32 || type == DType::f16 || type == DType::bf16;
    const bool logical = recipe_.form == Form::logic;
    if (program_ && (float_type || logical) && alike(ctx, type)) {
      plan_pointwise(ctx, node_, *program_, read_, type);
    } else {
      plan_typed(ctx, type);
    }
  }

 private:
  void check_inputs() const {
    const size_t n = which_.size();
    const bool ok = recipe_.form == Form::variadic ? n >= 1
                    : recipe_.form == Form::where  ? n == 3
                    : recipe_.form == Form::clip   ? n >= 1 && which_[0] == 0 && node_.inputs.size() <= 3
                    : recipe_.form == Form::unary  ? n == 1
                    : recipe_.form == Form::logic  ? n == (node_.op == "Not" ? 1u : 2u)
                    : recipe_.form == Form::bias   ? n == 1 || n == 2
                                                   : n == 2;
    check_model(ok, node_.op, " has ", n, " inputs");
  }

  void read_parameters() {
    const Attributes& a = node_.attributes;
    for (int k = 0; k < 2; ++k)
      if (recipe_.parameter[k].attribute)
        parameter_[k] = a.f(recipe_.parameter[k].attribute, recipe_.parameter[k].fallback);
    if (node_.op == "Gelu") {
      const std::string form = a.s("approximate", "none");
      check_model(form == "none" || form == "tanh", "Gelu approximate='", form, "'; needed: none or tanh");
      parameter_[0] = form == "tanh";
    }
    if (node_.op == "IsInf") {
      parameter_[0] = static_cast<float>(a.i("detect_negative", 1));
      parameter_[1] = static_cast<float>(a.i("detect_positive", 1));
    }
    if (node_.op == "Mod") parameter_[0] = static_cast<float>(a.i("fmod", 0));
    if (node_.op == "BitShift") {
      const std::string direction = a.s("direction");
      check_model(direction == "LEFT" || direction == "RIGHT", "BitShift direction='", direction, "'");
      parameter_[0] = direction == "LEFT";
    }
  }

  void build(BuildContext& ctx) {
    read_ = which_;
    std::optional<double> exponent;
    if (recipe_.form == Form::pow && (exponent = scalar_constant(ctx, 1))) read_ = {0};
    Builder b(static_cast<int>(read_.size()));
    b.output(value(b, exponent));
    b.finish();
    program_.emplace(std::move(b));
  }

  int value(Builder& b, std::optional<double> exponent) const {
    const char* tile = recipe_.tile;
    switch (recipe_.form) {
      case Form::unary:
        return unary(b);
      case Form::bias:
        return b.op(tile, which_.size() == 2 ? b.op("add", 0, 1) : 0);
      case Form::logic:
        return which_.size() == 1 ? b.op(tile, 0) : b.op(tile, 0, 1);
      case Form::where:
        return b.op(tile, 0, 1, 2);
      case Form::clip:
        return clip(b);
      case Form::variadic:
        return variadic(b);
      case Form::pow:
        return exponent ? power(b, static_cast<float>(*exponent)) : b.op(tile, 0, 1);
      default:
        return b.op(tile, 0, 1);
    }
  }

  int unary(Builder& b) const {
    if (node_.op == "Gelu") return b.op(parameter_[0] != 0 ? "gelu_tanh" : "gelu", 0);
    if (node_.op == "IsInf") {
      const bool negative = parameter_[0] != 0, positive = parameter_[1] != 0;
      if (negative && positive) return b.op("_is_inf", 0);
      const int zero = b.immediate(0);
      if (!negative && !positive) return b.op("less", zero, zero);
      return b.op("and", b.op("_is_inf", 0), b.op(positive ? "less" : "greater", zero, 0));
    }
    int p[2] = {-1, -1};
    for (int k = 0; k < 2; ++k)
      if (recipe_.parameter[k].attribute) p[k] = b.immediate(parameter_[k]);
    return b.op(recipe_.tile, 0, p[0], p[1]);
  }

  int clip(Builder& b) const {
    int low = -1, high = -1;
    for (size_t k = 1; k < which_.size(); ++k) (which_[k] == 1 ? low : high) = static_cast<int>(k);
    if (low < 0) low = b.immediate(-INFINITY);
    if (high < 0) high = b.immediate(INFINITY);
    return b.op("clip", 0, low, high);
  }

  int variadic(Builder& b) const {
    if (which_.size() == 1) return 0;
    int v = b.op(recipe_.tile, 0, 1);
    for (int k = 2; k < static_cast<int>(which_.size()); ++k) v = b.op(recipe_.tile, v, k);
    if (node_.op == "Mean") v = b.op("div", v, b.immediate(static_cast<float>(which_.size())));
    return v;
  }

  static int power(Builder& b, float exponent) {
    if (exponent == 2) return b.op("square", 0);
    if (exponent == 3) return b.op("_cube", 0);
    if (exponent == 0.5f) return b.op("_square_root", 0);
    if (exponent == -1) return b.op("reciprocal", 0);
    if (exponent == 1) return 0;
    return b.op("pow", 0, b.immediate(exponent));
  }

  // Whether the program's number inputs all have the type.
  bool alike(PlanContext& ctx, DType type) const {
    for (size_t k = 0; k < read_.size(); ++k) {
      const DType t = ctx.dtype(read_[k]);
      if (t != (program_->input_is_bool[k] ? DType::boolean : type)) return false;
    }
    return true;
  }

  void plan_typed(PlanContext& ctx, DType type) const {
    Shape shape = ctx.shape(which_[0]);
    for (int i : which_) {
      if (recipe_.form != Form::clip) shape = broadcast(shape, ctx.shape(i));
      const bool condition = recipe_.form == Form::where && i == 0;
      const bool free = recipe_.form == Form::pow && i == 1;
      check(free || ctx.dtype(i) == (condition ? DType::boolean : type), "input ", i, " is ", ctx.input(i),
            ", needed: ", name_of(condition ? DType::boolean : type));
    }
    const std::string& op = node_.op;
    switch (recipe_.form) {
      case Form::unary: {
        const bool test = op == "IsNaN" || op == "IsInf";
        return chain(ctx, need(ctx, typed_unary(op, type)), test ? DType::boolean : type, shape, 8);
      }
      case Form::compare:
        return chain(ctx, need(ctx, typed_compare(op, type)), DType::boolean, shape, 2);
      case Form::pow:
        return chain(ctx, need(ctx, typed_pow(type, ctx.dtype(1))), type, shape, 40);
      case Form::where:
        return chain(ctx, need(ctx, typed_where(size_of(type))), type, shape, 2);
      case Form::binary:
        return chain(ctx, need(ctx, typed_binary(op, type)), type, shape, 4);
      case Form::variadic:
        return fold(ctx, need(ctx, typed_binary(op, type)), type, shape);
      case Form::clip:
        return clip_typed(ctx, type, shape);
      default:
        ctx.not_native(words(op, " of ", name_of(type)));
    }
  }

  RowFn need(PlanContext& ctx, RowFn fn) const {
    if (!fn) ctx.not_native(words(node_.op, " of ", ctx.input(recipe_.form == Form::where ? 1 : 0)));
    return fn;
  }

  TypedArg arg(PlanContext& ctx, int i) const { return {ctx.in(i), ctx.input(i)}; }

  // One loop over all inputs.
  void chain(PlanContext& ctx, RowFn fn, DType out, const Shape& shape, double cost) const {
    TypedArg args[3];
    for (size_t k = 0; k < which_.size(); ++k) args[k] = arg(ctx, which_[k]);
    const TypedArg y{ctx.output(0, out, shape), {out, shape}};
    add_typed(ctx, "typed", fn, std::span<const TypedArg>(args, which_.size()), y, cost, parameter_[0], parameter_[1]);
  }

  // ((x0 op x1) op x2) ..., then the division of Mean.
  void fold(PlanContext& ctx, RowFn fn, DType type, const Shape& shape) const {
    if (which_.size() == 1) return ctx.alias(0, which_[0], type, shape);
    const bool mean = node_.op == "Mean";
    const RowFn divide = mean ? typed_unary("divide", type) : nullptr;
    if (mean && !divide) ctx.not_native(words("Mean of ", name_of(type)));
    const TypedArg y{ctx.output(0, type, shape), {type, shape}};
    for (size_t k = 1; k < which_.size(); ++k) {
      const TypedArg args[2] = {k == 1 ? arg(ctx, which_[0]) : y, arg(ctx, which_[k])};
      add_typed(ctx, "typed", fn, args, y, 4);
    }
    if (mean)
      add_typed(ctx, "typed", divide, std::span<const TypedArg>(&y, 1), y, 4, static_cast<double>(which_.size()));
  }

  void clip_typed(PlanContext& ctx, DType type, const Shape& shape) const {
    if (which_.size() == 1) return ctx.alias(0, 0, type, shape);
    const RowFn max = need(ctx, typed_binary("Max", type)), min = need(ctx, typed_binary("Min", type));
    const TypedArg y{ctx.output(0, type, shape), {type, shape}};
    TypedArg x = arg(ctx, 0);
    for (size_t k = 1; k < which_.size(); ++k) {
      TypedArg bound = arg(ctx, which_[k]);
      bound.desc.shape = Shape{};
      const TypedArg args[2] = {x, bound};
      add_typed(ctx, "typed", which_[k] == 1 ? max : min, args, y, 4);
      x = y;
    }
  }

  const Node& node_;
  const Recipe& recipe_;
  std::vector<int> which_;  // inputs that are present
  std::vector<int> read_;   // those that the program reads
  float parameter_[2] = {};
  std::optional<Builder> program_;
};

}  // namespace

std::unique_ptr<Op> make_elementwise(BuildContext& c) { return std::make_unique<Elementwise>(c); }

}  // namespace fi
