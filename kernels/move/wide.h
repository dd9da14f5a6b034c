// SPDX-License-Identifier: Apache-2.0
// W bytes as W/16 lanes; unpack interleaves the low or high halves of each lane, elements of U bytes.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace fi::FI_ISA {
namespace {

template <int W>
struct Wide;

template <>
struct Wide<16> {
  typedef uint8_t B __attribute__((vector_size(16)));
  typedef uint16_t H __attribute__((vector_size(16)));
  typedef uint32_t S __attribute__((vector_size(16)));
  typedef uint64_t D __attribute__((vector_size(16)));
  B v;
  static Wide load(const char* p) {
    Wide r;
    std::memcpy(&r.v, p, 16);
    return r;
  }
  static Wide load_lanes(const char* p, ptrdiff_t) { return load(p); }
  void store(char* p) const { std::memcpy(p, &v, 16); }
  template <int U>
  static Wide unpack_low(Wide a, Wide b) {
    if constexpr (U == 1)
      return {__builtin_shufflevector(a.v, b.v, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)};
    else if constexpr (U == 2)
      return {(B)__builtin_shufflevector((H)a.v, (H)b.v, 0, 8, 1, 9, 2, 10, 3, 11)};
    else if constexpr (U == 4)
      return {(B)__builtin_shufflevector((S)a.v, (S)b.v, 0, 4, 1, 5)};
    else
      return {(B)__builtin_shufflevector((D)a.v, (D)b.v, 0, 2)};
  }
  template <int U>
  static Wide unpack_high(Wide a, Wide b) {
    if constexpr (U == 1)
      return {__builtin_shufflevector(a.v, b.v, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)};
    else if constexpr (U == 2)
      return {(B)__builtin_shufflevector((H)a.v, (H)b.v, 4, 12, 5, 13, 6, 14, 7, 15)};
    else if constexpr (U == 4)
      return {(B)__builtin_shufflevector((S)a.v, (S)b.v, 2, 6, 3, 7)};
    else
      return {(B)__builtin_shufflevector((D)a.v, (D)b.v, 1, 3)};
  }
};

}  // namespace
}  // namespace fi::FI_ISA
