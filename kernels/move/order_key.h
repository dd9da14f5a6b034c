// SPDX-License-Identifier: Apache-2.0
// Numbers as unsigned integers in the same order, so that sorting is one algorithm for all types.
// +0 and -0 are equal, all NaNs are equal and above everything (numpy's sorting order).
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "csrc/base/dtype.h"

namespace fi {

// 16-bit floats by their bits; kInfinity tells the two formats apart.
template <uint16_t kInfinity>
struct Half {
  uint16_t bits;
};
using F16 = Half<0x7C00>;
using BF16 = Half<0x7F80>;

inline uint64_t order_key(float v) {
  uint32_t b;
  if (v != v) return UINT32_MAX;
  v += 0.0f;  // -0 → +0
  std::memcpy(&b, &v, sizeof b);
  return b >> 31 ? ~b : b | 0x80000000u;
}
inline uint64_t order_key(double v) {
  uint64_t b;
  if (v != v) return UINT64_MAX;
  v += 0.0;
  std::memcpy(&b, &v, sizeof b);
  return b >> 63 ? ~b : b | 0x8000000000000000u;
}
template <uint16_t kInfinity>
inline uint64_t order_key(Half<kInfinity> v) {
  const uint16_t magnitude = v.bits & 0x7FFF;
  if (magnitude > kInfinity) return UINT16_MAX;
  return v.bits >> 15 ? 0x8000 - magnitude : 0x8000 + magnitude;
}
template <class T>
inline std::enable_if_t<std::is_integral_v<T>, uint64_t> order_key(T v) {
  return std::is_signed_v<T> ? static_cast<uint64_t>(static_cast<int64_t>(v)) ^ 0x8000000000000000u
                             : static_cast<uint64_t>(v);
}

constexpr bool is_ordered(DType t) {
  return is_integer(t) || t == DType::boolean || t == DType::f32 || t == DType::f64 || t == DType::f16 ||
         t == DType::bf16;
}
// f(const T*) for an ordered dtype.
template <class F>
inline auto with_ordered(DType t, const void* p, F f) {
  switch (t) {
    case DType::f32:
      return f(static_cast<const float*>(p));
    case DType::f64:
      return f(static_cast<const double*>(p));
    case DType::f16:
      return f(static_cast<const F16*>(p));
    case DType::bf16:
      return f(static_cast<const BF16*>(p));
    case DType::s64:
      return f(static_cast<const int64_t*>(p));
    case DType::s32:
      return f(static_cast<const int32_t*>(p));
    case DType::s16:
      return f(static_cast<const int16_t*>(p));
    case DType::s8:
      return f(static_cast<const int8_t*>(p));
    case DType::u64:
      return f(static_cast<const uint64_t*>(p));
    case DType::u32:
      return f(static_cast<const uint32_t*>(p));
    case DType::u16:
      return f(static_cast<const uint16_t*>(p));
    default:
      return f(static_cast<const uint8_t*>(p));
  }
}

}  // namespace fi
