// SPDX-License-Identifier: Apache-2.0
// Single numbers of any type among the inputs.
#pragma once
#include <cmath>

#include "csrc/ops/op.h"

namespace fi {

constexpr bool has_whole_numbers(DType t) { return is_integer(t) || t == DType::f32 || t == DType::f64; }

// Element i as an integer; false: it is none (a fraction, NaN, beyond int64).
inline bool whole_number(DType t, const void* p, int64_t i, int64_t& value) {
  auto from_float = [&](double v) {
    if (!(v == std::trunc(v) && std::abs(v) < 0x1p62)) return false;
    value = static_cast<int64_t>(v);
    return true;
  };
  switch (t) {
    case DType::f32:
      return from_float(static_cast<const float*>(p)[i]);
    case DType::f64:
      return from_float(static_cast<const double*>(p)[i]);
    case DType::s8:
      value = static_cast<const int8_t*>(p)[i];
      return true;
    case DType::u8:
      value = static_cast<const uint8_t*>(p)[i];
      return true;
    case DType::s16:
      value = static_cast<const int16_t*>(p)[i];
      return true;
    case DType::u16:
      value = static_cast<const uint16_t*>(p)[i];
      return true;
    case DType::s32:
      value = static_cast<const int32_t*>(p)[i];
      return true;
    case DType::u32:
      value = static_cast<const uint32_t*>(p)[i];
      return true;
    case DType::s64:
      value = static_cast<const int64_t*>(p)[i];
      return true;
    case DType::u64: {
      const uint64_t v = static_cast<const uint64_t*>(p)[i];
      value = static_cast<int64_t>(v);
      return value >= 0;
    }
    default:
      return false;
  }
}

// A one-element input whose value shapes depend on; ends the segment if it is not known yet.
inline int64_t require_whole_number(PlanContext& ctx, int i) {
  const void* p = ctx.require(i);
  int64_t value = 0;
  check(ctx.input(i).elements() == 1 && whole_number(ctx.dtype(i), p, 0, value), "input ", i, " is ", ctx.input(i),
        ", needed: one whole number");
  return value;
}
inline double require_number(PlanContext& ctx, int i) {
  const void* p = ctx.require(i);
  const DType t = ctx.dtype(i);
  check(ctx.input(i).elements() == 1, "input ", i, " is ", ctx.input(i), ", needed: one number");
  if (t == DType::f32) return *static_cast<const float*>(p);
  if (t == DType::f64) return *static_cast<const double*>(p);
  return static_cast<double>(require_whole_number(ctx, i));
}

}  // namespace fi
