// SPDX-License-Identifier: Apache-2.0
#include "csrc/base/shape.h"

#include <algorithm>

namespace fi {

const char* name_of(DType t) {
  static constexpr const char* names[] = {
      "none",      "float32",    "uint8",         "int8",           "uint16",          "int16",       "int32",
      "int64",     "string",     "bool",          "float16",        "float64",         "uint32",      "uint64",
      "complex64", "complex128", "bfloat16",      "float8_e4m3fn",  "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz",
      "uint4",     "int4",       "float4_e2m1fn", "float8_e8m0fnu", "uint2",           "int2"};
  const auto i = static_cast<size_t>(t);
  return i < std::size(names) ? names[i] : "object";
}

void Shape::insert(int at, int64_t d) {
  push(0);
  std::copy_backward(dims_ + at, dims_ + rank_ - 1, dims_ + rank_);
  dims_[at] = d;
}

void Shape::erase(int at) {
  std::copy(dims_ + at + 1, dims_ + rank_, dims_ + at);
  --rank_;
}

int64_t Shape::elements(int first, int last) const {
  // Overflow is judged on the non-zero extents, so that a zero cannot hide a huge one.
  constexpr int64_t limit = int64_t{1} << 48;
  int64_t n = 1;
  bool empty = false;
  for (int i = first; i < last; ++i) {
    check(dims_[i] >= 0, "negative extent in shape ", *this);
    if (dims_[i] == 0) {
      empty = true;
      continue;
    }
    check(dims_[i] <= limit / n, "shape ", *this, " has more than 2^48 elements");
    n *= dims_[i];
  }
  return empty ? 0 : n;
}

std::ostream& operator<<(std::ostream& out, const Shape& s) {
  out << '[';
  for (int i = 0; i < s.rank(); ++i) out << (i ? "," : "") << s[i];
  return out << ']';
}

std::ostream& operator<<(std::ostream& out, const Desc& d) { return out << name_of(d.dtype) << d.shape; }

int normalize_axis(int64_t axis, int rank) {
  check(axis >= -rank && axis < rank, "axis ", axis, " is outside [", -rank, ", ", rank, ")");
  return static_cast<int>(axis < 0 ? axis + rank : axis);
}

Shape broadcast(const Shape& a, const Shape& b) {
  const Shape& longer = a.rank() >= b.rank() ? a : b;
  const Shape& shorter = a.rank() >= b.rank() ? b : a;
  Shape out = longer;
  const int shift = longer.rank() - shorter.rank();
  for (int i = 0; i < shorter.rank(); ++i) {
    const int64_t x = longer[i + shift], y = shorter[i];
    check(x == y || x == 1 || y == 1, "shapes ", a, " and ", b, " do not broadcast");
    out[i + shift] = x == 1 ? y : x;
  }
  return out;
}

Shape strides_of(const Shape& s) {
  Shape out = s;
  int64_t step = 1;
  for (int i = s.rank() - 1; i >= 0; --i) {
    out[i] = step;
    step *= s[i];
  }
  return out;
}

}  // namespace fi
