// SPDX-License-Identifier: Apache-2.0
// Elementwise operators over any type, one element at a time with broadcasting: what float32 vectors do not cover.
#pragma once
#include <span>
#include <string>

#include "csrc/ops/op.h"

namespace fi {

// One run of n elements. Operand k of element i is x[k][i * step[k]], step 0 or 1.
struct TypedRow {
  const void* x[3];
  int64_t step[3];
  void* y;
  int64_t n;
  double alpha, beta;
  template <class T>
  const T& in(int k, int64_t i) const {
    return static_cast<const T*>(x[k])[i * step[k]];
  }
  template <class T>
  T& out(int64_t i) const {
    return static_cast<T*>(y)[i];
  }
};
using RowFn = Status (*)(const TypedRow&);

struct TypedArg {
  Operand data;
  Desc desc;
};
// Inputs (at most 3) broadcast to the output's shape. cost: per element, in the units of parts_for.
void add_typed(PlanContext& ctx, const char* kernel, RowFn fn, std::span<const TypedArg> inputs, const TypedArg& output,
               double cost, double alpha = 0, double beta = 0);

// The loops; nullptr where the operator does not exist for the type. Operator names are ONNX's.
RowFn typed_binary(const std::string& op, DType t);   // result of type t
RowFn typed_compare(const std::string& op, DType t);  // result bool
RowFn typed_unary(const std::string& op, DType t);    // result of type t (IsNaN, IsInf: bool)
RowFn typed_pow(DType base, DType exponent);          // result of the base's type
RowFn typed_where(size_t element_bytes);              // condition, x, y

}  // namespace fi
