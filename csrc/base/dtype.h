// SPDX-License-Identifier: Apache-2.0
// Element types, numbered as in ONNX's TensorProto.DataType.
#pragma once
#include <cstddef>
#include <cstdint>

namespace fi {

enum class DType : uint8_t {
  none = 0,
  f32 = 1,
  u8 = 2,
  s8 = 3,
  u16 = 4,
  s16 = 5,
  s32 = 6,
  s64 = 7,
  string = 8,
  boolean = 9,
  f16 = 10,
  f64 = 11,
  u32 = 12,
  u64 = 13,
  c64 = 14,
  c128 = 15,
  bf16 = 16,
  f8e4m3fn = 17,
  f8e4m3fnuz = 18,
  f8e5m2 = 19,
  f8e5m2fnuz = 20,
  u4 = 21,
  s4 = 22,
  f4e2m1 = 23,
  f8e8m0 = 24,
  u2 = 25,
  s2 = 26,
  opaque = 255,  // sequences, optionals, strings: a Python object that only fallback operators look into
};

// Bytes per element as held in memory. Sub-byte types are held unpacked, one element per byte.
constexpr size_t size_of(DType t) {
  switch (t) {
    case DType::none:
    case DType::string:
    case DType::opaque:
      return 0;
    case DType::f64:
    case DType::s64:
    case DType::u64:
    case DType::c64:
      return 8;
    case DType::c128:
      return 16;
    case DType::f32:
    case DType::s32:
    case DType::u32:
      return 4;
    case DType::f16:
    case DType::bf16:
    case DType::s16:
    case DType::u16:
      return 2;
    default:
      return 1;
  }
}

const char* name_of(DType t);
constexpr bool is_integer(DType t) {
  return t == DType::u8 || t == DType::s8 || t == DType::u16 || t == DType::s16 || t == DType::s32 || t == DType::s64 ||
         t == DType::u32 || t == DType::u64;
}

}  // namespace fi
