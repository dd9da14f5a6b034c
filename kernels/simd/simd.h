// SPDX-License-Identifier: Apache-2.0
// Vector types of the instruction set that this file is compiled for, in namespace fi::FI_ISA:
//   VF  W float lanes        VI  W int32 lanes        VM  W truth values
// Every function is static and always inlined: no symbol is shared between instruction sets.
// `n` arguments: only the first n lanes (0 <= n <= W) are touched in memory; loaded lanes beyond are 0.
//
//   load(p), load(p, n), store(p, v), store(p, v, n)            float and int32, unaligned
//   load_u8 load_s8 load_u16 load_s16 load_s32 load_f16 load_bf16 (p[, n])    → VF
//   store_u8 store_s8 store_f16 store_bf16 (p, VF[, n])         round half to even; u8 and s8 saturate, NaN → 0 or
//   minimum load_mask(const uint8_t*[, n]), store_mask(uint8_t*, VM[, n])             bool tensors: one byte, 0 or 1
//   set1(float) set1i(int32) zero() lane_index() first_n(n)
//   + - * / neg   fma(a,b,c) = a·b+c   fms = a·b−c   fnma = c−a·b            (baseline: two roundings)
//   min max abs sqrt floor ceil round trunc     min/max: the second operand if either is NaN (as in minps)
//   min_nan max_nan                             NaN if either is NaN (as in numpy)
//   < <= > >= ==, !=, is_nan → VM;  & | ^ ~ and any all of VM;  select(m, a, b) = m ? a : b
//   to_int (half to even) to_int_trunc to_float   as_int as_float (same bits)   int: + - * & | ^ shl sra srl == > min
//   max exponent scaling: scale2(a, n) = a·2^n with n an integral float, |n| <= 300, denormal results rounded once or
//   twice reduce_add reduce_max reduce_min            fixed tree: halves, then quarters, ...
#pragma once
#ifndef FI_ISA
#error "FI_ISA must name the instruction set (CMake sets it for kernels/*/reference.cc and x86_*.cc)"
#endif
#include <cstddef>
#include <cstdint>
#include <cstring>

#define FI_INLINE static inline __attribute__((always_inline))
#define FI_INLINE_MEMBER inline __attribute__((always_inline))

#if defined(__AVX512F__)
#include "kernels/simd/avx512.h"
#elif defined(__AVX2__)
#include "kernels/simd/avx2.h"
#else
#include "kernels/simd/baseline.h"
#endif

namespace fi::FI_ISA {

FI_INLINE VF min_nan(VF a, VF b) { return select(is_nan(a), a, min(a, b)); }
FI_INLINE VF max_nan(VF a, VF b) { return select(is_nan(a), a, max(a, b)); }
FI_INLINE VF clamp(VF x, VF lo, VF hi) { return min(hi, max(lo, x)); }  // NaN stays NaN
FI_INLINE VF& operator+=(VF& a, VF b) { return a = a + b; }
FI_INLINE VF& operator-=(VF& a, VF b) { return a = a - b; }
FI_INLINE VF& operator*=(VF& a, VF b) { return a = a * b; }

}  // namespace fi::FI_ISA
