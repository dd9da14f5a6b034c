// SPDX-License-Identifier: Apache-2.0
// Eight 4-bit weights → four registers of two float16 or bfloat16 each, exactly q - zero. On the host the same bits.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstring>

#include "csrc/base/host_device.h"

namespace fi {

FI_HD float w4_float(uint32_t bits) {
#ifdef __CUDA_ARCH__
  return __uint_as_float(bits);
#else
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
#endif
}

// (a & mask) | high, one instruction.
FI_HD uint32_t w4_pick(uint32_t a, uint32_t mask, uint32_t high) {
#ifdef __CUDA_ARCH__
  uint32_t d;
  asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(d) : "r"(a), "r"(mask), "r"(high));
  return d;
#else
  return (a & mask) | high;
#endif
}

struct W4Half {
  using Type = __half;
  static FI_HD float value(uint32_t pair, int e) {
    __half_raw raw;
    raw.x = static_cast<unsigned short>(pair >> (16 * e));
    return __half2float(__half(raw));
  }
  static FI_HD uint32_t pair(float low, float high) {
    const __half_raw a = __float2half_rn(low), b = __float2half_rn(high);
    return static_cast<uint32_t>(b.x) << 16 | a.x;
  }
  static FI_HD uint32_t sub(uint32_t a, uint32_t b) {
#ifdef __CUDA_ARCH__
    uint32_t d;
    asm("sub.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
    return d;
#else
    return pair(value(a, 0) - value(b, 0), value(a, 1) - value(b, 1));
#endif
  }
  static FI_HD uint32_t fma(uint32_t a, uint32_t b, uint32_t c) {
#ifdef __CUDA_ARCH__
    uint32_t d;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
#else  // exact in float32: 11 bits times 11 bits
    return pair(value(a, 0) * value(b, 0) + value(c, 0), value(a, 1) * value(b, 1) + value(c, 1));
#endif
  }
  // z0, z8: zero points of rows g and g + 8, registers 0, 2 and 1, 3. The odd registers' bits are picked four places
  // up: (1024 + 16 q) / 16 - (64 + z) saves their shift.
  static FI_HD void dequantise(uint32_t word, uint32_t z0, uint32_t z8, uint32_t (&r)[4]) {
    constexpr uint32_t kLow = 0x000f000f, kHigh = 0x00f000f0, k1024 = 0x64006400, kSixteenth = 0x2c002c00;
    const uint32_t minus0 = k1024 + z0 * 0x00010001, minus8 = 0xd400d400 + z8 * 0x00100010;
    r[0] = sub(w4_pick(word, kLow, k1024), minus0);
    r[1] = fma(w4_pick(word, kHigh, k1024), kSixteenth, minus8);
    r[2] = sub(w4_pick(word >> 8, kLow, k1024), minus0);
    r[3] = fma(w4_pick(word >> 8, kHigh, k1024), kSixteenth, minus8);
  }
};

struct W4BFloat {
  using Type = __nv_bfloat16;
  static FI_HD float value(uint32_t pair, int e) { return w4_float(e ? pair & 0xffff0000u : pair << 16); }
  static FI_HD uint32_t pair(float low, float high) {
    const __nv_bfloat16_raw a = __float2bfloat16_rn(low), b = __float2bfloat16_rn(high);
    return static_cast<uint32_t>(b.x) << 16 | a.x;
  }
  static FI_HD uint32_t sub(uint32_t a, uint32_t b) {
#ifdef __CUDA_ARCH__
    uint32_t d;
    asm("sub.bf16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
    return d;
#else
    return pair(value(a, 0) - value(b, 0), value(a, 1) - value(b, 1));
#endif
  }
  // Seven bits of mantissa hold 128 + q, and no more: every register's bits are shifted down.
  static FI_HD void dequantise(uint32_t word, uint32_t z0, uint32_t z8, uint32_t (&r)[4]) {
    constexpr uint32_t kLow = 0x000f000f, k128 = 0x43004300;
    const uint32_t minus0 = k128 + z0 * 0x00010001, minus8 = k128 + z8 * 0x00010001;
    r[0] = sub(w4_pick(word, kLow, k128), minus0);
    r[1] = sub(w4_pick(word >> 4, kLow, k128), minus8);
    r[2] = sub(w4_pick(word >> 8, kLow, k128), minus0);
    r[3] = sub(w4_pick(word >> 12, kLow, k128), minus8);
  }
};

// A word of meta.
FI_HD uint32_t w4_zero(uint32_t meta) { return meta & 15; }
FI_HD float w4_scale(uint32_t meta) { return w4_float(meta & ~15u); }

}  // namespace fi
