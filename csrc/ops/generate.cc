// SPDX-License-Identifier: Apache-2.0
// Tensors made from little: ConstantOfShape, Constant, EyeLike, OneHot, Range.
#include <cmath>

#include "csrc/ops/copy_step.h"
#include "csrc/ops/scalar_input.h"

namespace fi {
namespace {

alignas(16) constexpr char kZero[16] = {};

void add_fill(PlanContext& ctx, int64_t elements, int64_t unit, Operand value, Operand y) {
  StridedCopy copy(unit);
  copy.axis(elements, 0, unit);
  add_copy(ctx, copy, value, y);
}

void plan_constant_of_shape(PlanContext& ctx, const Node& node) {
  const Tensor* value = node.attributes.tensor("value");
  check_model(!value || value->desc.elements() == 1, "value has ", value ? value->desc.elements() : 0,
              " elements, needed: 1");
  const std::vector<int64_t> dims = ctx.require_ints(0);
  const DType t = value ? value->desc.dtype : DType::f32;
  if (size_of(t) == 0) ctx.not_native(words("value of ", name_of(t)));
  const Shape out(dims.begin(), dims.end());
  const int64_t n = out.elements();
  const Operand y = ctx.output(0, t, out);
  add_fill(ctx, n, static_cast<int64_t>(size_of(t)), ctx.address(value ? value->data : kZero), y);
}

void plan_constant(PlanContext& ctx, const Node& node) {
  const Attributes& a = node.attributes;
  if (const Tensor* v = a.tensor("value")) {
    if (size_of(v->desc.dtype) == 0) ctx.not_native("a constant of strings");
    return ctx.known_output(0, v->desc.dtype, v->desc.shape, v->data);
  }
  if (a.has("value_float")) {
    const float v = a.f("value_float");
    return ctx.known_output(0, DType::f32, {}, &v);
  }
  if (a.has("value_int")) {
    const int64_t v = a.i("value_int");
    return ctx.known_output(0, DType::s64, {}, &v);
  }
  if (a.has("value_floats")) {
    const std::vector<float> v = a.floats("value_floats");
    return ctx.known_output(0, DType::f32, {static_cast<int64_t>(v.size())}, v.data());
  }
  if (a.has("value_ints")) {
    const std::vector<int64_t> v = a.ints("value_ints");
    return ctx.known_output(0, DType::s64, {static_cast<int64_t>(v.size())}, v.data());
  }
  ctx.not_native("a constant without a numeric value");
}

// ------------------------------------------------------------------------------------------------------- EyeLike

struct Eye {
  int64_t rows, cols, unit, k;
  char one[8];
};

// The bytes of 1 in a type; false: not known here.
bool one_of(DType t, char* bytes) {
  uint64_t one = 1;
  switch (t) {
    case DType::f32:
      one = 0x3F800000;
      break;
    case DType::f64:
      one = 0x3FF0000000000000;
      break;
    case DType::f16:
      one = 0x3C00;
      break;
    case DType::bf16:
      one = 0x3F80;
      break;
    default:
      if (!is_integer(t) && t != DType::boolean) return false;
  }
  std::memcpy(bytes, &one, 8);  // little-endian: the low bytes come first
  return true;
}

Status eye(const void* params, void* const* args, int, int) {
  const auto& p = *static_cast<const Eye*>(params);
  auto* y = static_cast<char*>(args[0]);
  std::memset(y, 0, p.rows * p.cols * p.unit);
  for (int64_t r = 0; r < p.rows; ++r)
    if (p.k >= -r && p.k < p.cols - r) std::memcpy(y + (r * p.cols + r + p.k) * p.unit, p.one, p.unit);
  return Status::ok;
}

void plan_eye_like(PlanContext& ctx, const Node& node) {
  const Shape in = ctx.shape(0);
  check(in.rank() == 2, "input is ", in, ", needed: rank 2");
  const DType t = node.attributes.has("dtype") ? static_cast<DType>(node.attributes.i("dtype")) : ctx.dtype(0);
  Eye p{in[0], in[1], static_cast<int64_t>(size_of(t)), node.attributes.i("k", 0), {}};
  if (!one_of(t, p.one)) ctx.not_native(words("EyeLike of ", name_of(t)));
  const Operand y = ctx.output(0, t, in);
  ctx.step("eye", eye, p, {y});
}

// -------------------------------------------------------------------------------------------------------- OneHot

struct OneHot {
  DType index;
  int64_t outer, depth, inner, unit;
};

// y[o, d, i] = values[index[o, i] == d]; args: indices, values (off, on), y.
Status one_hot(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const OneHot*>(params);
  const auto* values = static_cast<const char*>(args[1]);
  const Range r = part_of(p.outer, part, parts);
  const int64_t plane = p.depth * p.inner;
  for (int64_t o = r.begin; o < r.end; ++o) {
    char* y = static_cast<char*>(args[2]) + o * plane * p.unit;
    for (int64_t j = 0; j < plane; ++j) std::memcpy(y + j * p.unit, values, p.unit);
    for (int64_t i = 0; i < p.inner; ++i) {
      int64_t d;
      if (!whole_number(p.index, args[0], o * p.inner + i, d)) continue;
      if (d < 0) d += p.depth;
      if (d >= 0 && d < p.depth) std::memcpy(y + (d * p.inner + i) * p.unit, values + p.unit, p.unit);
    }
  }
  return Status::ok;
}

void plan_one_hot(PlanContext& ctx, const Node& node) {
  const Shape in = ctx.shape(0);
  const DType index = ctx.dtype(0), t = ctx.dtype(2);
  if (!has_whole_numbers(index)) ctx.not_native(words("OneHot indices of ", name_of(index)));
  check(ctx.input(2).elements() == 2, "values are ", ctx.input(2), ", needed: [off, on]");
  const double depth = std::trunc(require_number(ctx, 1));
  check(depth >= 0 && depth < 0x1p48, "depth is ", depth);
  const int axis = normalize_axis(node.attributes.i("axis", -1), in.rank() + 1);
  Shape out = in;
  out.insert(axis, static_cast<int64_t>(depth));
  const Operand y = ctx.output(0, t, out);
  const OneHot p{index, in.elements(0, axis), out[axis], in.elements(axis, in.rank()),
                 static_cast<int64_t>(size_of(t))};
  const int64_t n = out.elements();
  if (n > 0) ctx.step("one_hot", one_hot, p, {ctx.in(0), ctx.in(2), y}, ctx.parts_for(double(n)));
}

// --------------------------------------------------------------------------------------------------------- Range

struct Series {
  DType dtype;
  int64_t n, start, delta;
  double first, step;
};

template <class T, class V>
void fill_series(void* y, V first, V step, Range r) {
  for (int64_t i = r.begin; i < r.end; ++i) static_cast<T*>(y)[i] = static_cast<T>(first + static_cast<V>(i) * step);
}

// y[i] = start + i·delta, wrapping around in integers.
Status series(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const Series*>(params);
  const Range r = part_of(p.n, part, parts);
  const auto start = static_cast<uint64_t>(p.start), delta = static_cast<uint64_t>(p.delta);
  switch (p.dtype) {
    case DType::f32:
      fill_series<float>(args[0], p.first, p.step, r);
      break;
    case DType::f64:
      fill_series<double>(args[0], p.first, p.step, r);
      break;
    case DType::s16:
      fill_series<int16_t>(args[0], start, delta, r);
      break;
    case DType::s32:
      fill_series<int32_t>(args[0], start, delta, r);
      break;
    default:
      fill_series<int64_t>(args[0], start, delta, r);
      break;
  }
  return Status::ok;
}

// ceil((limit - start) / delta), at least 0; with the difference rounded to the type as numpy has it.
double series_length(DType t, double start, double limit, double delta) {
  const double span = t == DType::f32 ? static_cast<float>(limit - start) : limit - start;
  const double n = std::ceil(span / delta);
  return n < 0 ? 0 : n;
}
double series_length(int64_t start, int64_t limit, int64_t delta) {
  const __int128 span = static_cast<__int128>(limit) - start, step = delta;
  const __int128 n = step > 0 ? (span + step - 1) / step : (span + step + 1) / step;
  return n < 0 ? 0 : static_cast<double>(n);
}

void plan_range(PlanContext& ctx, const Node&) {
  const DType t = ctx.dtype(0);
  check(ctx.dtype(1) == t && ctx.dtype(2) == t, "start, limit and delta are ", ctx.input(0), ", ", ctx.input(1),
        " and ", ctx.input(2));
  Series p{t, 0, 0, 0, 0, 0};
  double n;
  if (t == DType::f32 || t == DType::f64) {
    p.first = require_number(ctx, 0);
    p.step = require_number(ctx, 2);
    n = series_length(t, p.first, require_number(ctx, 1), p.step);
    check(p.step != 0 && n < 0x1p48, "range from ", p.first, " by ", p.step, " does not end");
  } else {
    if (t != DType::s16 && t != DType::s32 && t != DType::s64) ctx.not_native(words("Range of ", name_of(t)));
    p.start = require_whole_number(ctx, 0);
    p.delta = require_whole_number(ctx, 2);
    check(p.delta != 0, "delta is 0");
    n = series_length(p.start, require_whole_number(ctx, 1), p.delta);
    check(n < 0x1p48, "range of ", n, " elements");
  }
  p.n = static_cast<int64_t>(n);
  const Operand y = ctx.output(0, t, Shape{p.n});
  if (p.n > 0) ctx.step("series", series, p, {y}, ctx.parts_for(n));
}

}  // namespace

std::unique_ptr<Op> make_constant_of_shape(BuildContext& c) { return make_plain<plan_constant_of_shape>(c); }
std::unique_ptr<Op> make_constant(BuildContext& c) { return make_plain<plan_constant>(c); }
std::unique_ptr<Op> make_eye_like(BuildContext& c) { return make_plain<plan_eye_like>(c); }
std::unique_ptr<Op> make_one_hot(BuildContext& c) { return make_plain<plan_one_hot>(c); }
std::unique_ptr<Op> make_range(BuildContext& c) { return make_plain<plan_range>(c); }

}  // namespace fi
