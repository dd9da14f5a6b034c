// SPDX-License-Identifier: Apache-2.0
// Eight weights → four registers of two float16 or bfloat16 each, exactly q - zero. On the host the same bits.
// dequantise4: of the 8 fields of one word; dequantise8: of the bytes of two, w[0] of row g, w[1] of row g + 8.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstring>

#include "csrc/base/host_device.h"

namespace fi {

FI_HD float wn_float(uint32_t bits) {
#ifdef __CUDA_ARCH__
  return __uint_as_float(bits);
#else
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
#endif
}

// (a & mask) | high, one instruction.
FI_HD uint32_t wn_pick(uint32_t a, uint32_t mask, uint32_t high) {
#ifdef __CUDA_ARCH__
  uint32_t d;
  asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(d) : "r"(a), "r"(mask), "r"(high));
  return d;
#else
  return (a & mask) | high;
#endif
}

// Bytes of (b, a): one instruction.
FI_HD uint32_t wn_permute(uint32_t a, uint32_t b, uint32_t selector) {
#ifdef __CUDA_ARCH__
  return __byte_perm(a, b, selector);
#else
  const uint64_t both = static_cast<uint64_t>(b) << 32 | a;
  uint32_t d = 0;
  for (int i = 0; i < 4; ++i) d |= static_cast<uint32_t>(both >> (selector >> (4 * i) & 7) * 8 & 255) << (8 * i);
  return d;
#endif
}

struct WnHalf {
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
  static FI_HD void dequantise4(uint32_t word, uint32_t z0, uint32_t z8, uint32_t (&r)[4]) {
    constexpr uint32_t kLow = 0x000f000f, kHigh = 0x00f000f0, k1024 = 0x64006400, kSixteenth = 0x2c002c00;
    const uint32_t minus0 = k1024 + z0 * 0x00010001, minus8 = 0xd400d400 + z8 * 0x00100010;
    r[0] = sub(wn_pick(word, kLow, k1024), minus0);
    r[1] = fma(wn_pick(word, kHigh, k1024), kSixteenth, minus8);
    r[2] = sub(wn_pick(word >> 8, kLow, k1024), minus0);
    r[3] = fma(wn_pick(word >> 8, kHigh, k1024), kSixteenth, minus8);
  }
  static FI_HD void dequantise8(const uint32_t (&w)[2], uint32_t z0, uint32_t z8, uint32_t (&r)[4]) {
    constexpr uint32_t k1024 = 0x64006400;
    const uint32_t minus[2] = {k1024 + z0 * 0x00010001, k1024 + z8 * 0x00010001};
    for (int i = 0; i < 4; ++i) r[i] = sub(wn_permute(w[i % 2], k1024, i / 2 ? 0x7372 : 0x7170), minus[i % 2]);
  }
};

struct WnBFloat {
  using Type = __nv_bfloat16;
  static FI_HD float value(uint32_t pair, int e) { return wn_float(e ? pair & 0xffff0000u : pair << 16); }
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
  static FI_HD void dequantise4(uint32_t word, uint32_t z0, uint32_t z8, uint32_t (&r)[4]) {
    constexpr uint32_t kLow = 0x000f000f, k128 = 0x43004300;
    const uint32_t minus0 = k128 + z0 * 0x00010001, minus8 = k128 + z8 * 0x00010001;
    r[0] = sub(wn_pick(word, kLow, k128), minus0);
    r[1] = sub(wn_pick(word >> 4, kLow, k128), minus8);
    r[2] = sub(wn_pick(word >> 8, kLow, k128), minus0);
    r[3] = sub(wn_pick(word >> 12, kLow, k128), minus8);
  }
  // A byte is more than 128 has room for: through float32's 2^23. -255 to 255 are exact in bfloat16.
  static FI_HD void dequantise8(const uint32_t (&w)[2], uint32_t z0, uint32_t z8, uint32_t (&r)[4]) {
    constexpr uint32_t k2To23 = 0x4b000000;
    const float minus[2] = {wn_float(k2To23 + z0), wn_float(k2To23 + z8)};
    for (int i = 0; i < 4; ++i) {
      const float low = wn_float(wn_permute(w[i % 2], k2To23, i / 2 ? 0x7652 : 0x7650)) - minus[i % 2];
      const float high = wn_float(wn_permute(w[i % 2], k2To23, i / 2 ? 0x7653 : 0x7651)) - minus[i % 2];
#ifdef __CUDA_ARCH__
      asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r[i]) : "f"(high), "f"(low));
#else
      r[i] = pair(low, high);
#endif
    }
  }
};

template <int kBits, class D>
FI_HD void wn_dequantise(const uint32_t* words, uint32_t z0, uint32_t z8, uint32_t (&r)[4]) {
  if constexpr (kBits == 4) {
    D::dequantise4(words[0], z0, z8, r);
  } else {
    const uint32_t two[2] = {words[0], words[1]};
    D::dequantise8(two, z0, z8, r);
  }
}

// A word of meta.
template <int kBits>
FI_HD uint32_t wn_zero(uint32_t meta) {
  return meta & ((1u << kBits) - 1);
}
template <int kBits>
FI_HD float wn_scale(uint32_t meta) {
  return wn_float(meta & ~((1u << kBits) - 1));
}

}  // namespace fi
