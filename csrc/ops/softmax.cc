// SPDX-License-Identifier: Apache-2.0
#include "kernels/softmax/softmax.h"

#include <cmath>

#include "csrc/ops/pointwise_step.h"

namespace fi {
namespace {

Status softmax_f64(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const SoftmaxParams*>(params);
  const Range r = part_of(p.outer * p.inner, part, parts);
  for (int64_t u = r.begin; u < r.end; ++u) {
    const int64_t at = u / p.inner * p.n * p.inner + u % p.inner;
    const double* x = static_cast<const double*>(args[0]) + at;
    double* y = static_cast<double*>(args[1]) + at;
    double top = -INFINITY, sum = 0;
    for (int64_t k = 0; k < p.n; ++k) top = std::fmax(top, x[k * p.inner]);
    for (int64_t k = 0; k < p.n; ++k) sum += std::exp(x[k * p.inner] - top);
    const double shift = std::log(sum);
    for (int64_t k = 0; k < p.n; ++k) {
      const double v = x[k * p.inner] - top;
      y[k * p.inner] = p.log ? v - shift : std::exp(v) / sum;
    }
  }
  return Status::ok;
}

// 1 at the first maximum (NaN counts as the largest, as in numpy), else 0.
template <class T>
Status hardmax(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const SoftmaxParams*>(params);
  const Range r = part_of(p.outer * p.inner, part, parts);
  for (int64_t u = r.begin; u < r.end; ++u) {
    const int64_t at = u / p.inner * p.n * p.inner + u % p.inner;
    const T* x = static_cast<const T*>(args[0]) + at;
    T* y = static_cast<T*>(args[1]) + at;
    int64_t best = 0;
    for (int64_t k = 1; k < p.n && x[best * p.inner] == x[best * p.inner]; ++k)
      if (!(x[k * p.inner] <= x[best * p.inner])) best = k;
    for (int64_t k = 0; k < p.n; ++k) y[k * p.inner] = static_cast<T>(k == best);
  }
  return Status::ok;
}

SoftmaxParams params_over(const Shape& s, int64_t given_axis, bool log) {
  if (s.rank() == 0) return {1, 1, 1, log};
  const int axis = normalize_axis(given_axis, s.rank());
  return {s.elements(0, axis), s[axis], s.elements(axis + 1, s.rank()), log};
}

void plan_softmax(PlanContext& ctx, const Node& node) {
  const Desc x = ctx.input(0);
  const SoftmaxParams p = params_over(x.shape, node.attributes.i("axis", -1), node.op == "LogSoftmax");
  const int parts = ctx.parts_for(static_cast<double>(x.elements()));
  if (x.dtype == DType::f64) {
    const Operand y = ctx.output(0, x.dtype, x.shape);
    if (x.elements() > 0) ctx.step("softmax_f64", softmax_f64, p, {ctx.in(0), y}, parts);
    return;
  }
  const Operand in = float_input(ctx, 0);
  const FloatOutput y = float_output(ctx, 0, x.dtype, x.shape, 0);
  if (x.elements() == 0) return;
  const SoftmaxKernel kernel = select_softmax(ctx.isa());
  ctx.step(kernel.name, kernel.run, p, {in, y.data}, parts);
  y.finish(ctx);
}

void plan_hardmax(PlanContext& ctx, const Node& node) {
  const Desc x = ctx.input(0);
  const SoftmaxParams p = params_over(x.shape, node.attributes.i("axis", -1), false);
  const int parts = ctx.parts_for(static_cast<double>(x.elements()) * 4);
  if (x.dtype == DType::f64) {
    const Operand y = ctx.output(0, x.dtype, x.shape);
    if (x.elements() > 0) ctx.step("hardmax", hardmax<double>, p, {ctx.in(0), y}, parts);
    return;
  }
  const Operand in = float_input(ctx, 0);
  const FloatOutput y = float_output(ctx, 0, x.dtype, x.shape);
  if (x.elements() == 0) return;
  ctx.step("hardmax", hardmax<float>, p, {in, y.data}, parts);
  y.finish(ctx);
}

}  // namespace

std::unique_ptr<Op> make_softmax(BuildContext& c) { return make_plain<plan_softmax>(c); }
std::unique_ptr<Op> make_hardmax(BuildContext& c) { return make_plain<plan_hardmax>(c); }

}  // namespace fi
