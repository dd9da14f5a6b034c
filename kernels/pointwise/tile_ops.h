// SPDX-License-Identifier: Apache-2.0
// tile_ops.inc as loops over a tile.
#pragma once
#include "kernels/pointwise/pointwise.h"
#include "kernels/simd/math.h"
#include "kernels/simd/pow.h"
#include "kernels/simd/trigonometry.h"

#define FI_FORCED __attribute__((always_inline))

namespace fi::FI_ISA {

// step: all bits set, or 0 for a value that stands for all elements; then p holds one vector of copies.
struct TileArg {
  const void* p;
  size_t step;
};
using TileFn = void (*)(TileArg a, TileArg b, TileArg c, void* y, int n);

FI_INLINE VF square(VF a) { return a * a; }
FI_INLINE VF sign(VF a) {
  const VF one = set1(1.f), s = select(a > zero(), one, select(a < zero(), neg(one), zero()));
  return select(is_nan(a), a, s);
}

struct Float {
  using Memory = float;
  using Vector = VF;
  static inline FI_FORCED VF read(TileArg a, size_t i) { return load(static_cast<const float*>(a.p) + (i & a.step)); }
  static inline FI_FORCED VF read(TileArg a, size_t i, int n) {
    return load(static_cast<const float*>(a.p) + (i & a.step), n);
  }
  static inline FI_FORCED void write(void* y, size_t i, VF v) { store(static_cast<float*>(y) + i, v); }
  static inline FI_FORCED void write(void* y, size_t i, VF v, int n) { store(static_cast<float*>(y) + i, v, n); }
};
struct Bool {
  using Memory = uint8_t;
  using Vector = VM;
  static inline FI_FORCED VM read(TileArg a, size_t i) {
    return load_mask(static_cast<const uint8_t*>(a.p) + (i & a.step));
  }
  static inline FI_FORCED VM read(TileArg a, size_t i, int n) {
    return load_mask(static_cast<const uint8_t*>(a.p) + (i & a.step), n);
  }
  static inline FI_FORCED void write(void* y, size_t i, VM v) { store_mask(static_cast<uint8_t*>(y) + i, v); }
  static inline FI_FORCED void write(void* y, size_t i, VM v, int n) { store_mask(static_cast<uint8_t*>(y) + i, v, n); }
};

template <class Y, class A, class F>
static inline FI_FORCED void loop1(F f, TileArg a, void* y, int n) {
  int i = 0;
  for (; i + VF::W <= n; i += VF::W) Y::write(y, i, f(A::read(a, i)));
  if (const int left = n - i; left > 0) Y::write(y, i, f(A::read(a, i, left)), left);
}
template <class Y, class A, class B, class F>
static inline FI_FORCED void loop2(F f, TileArg a, TileArg b, void* y, int n) {
  int i = 0;
  for (; i + VF::W <= n; i += VF::W) Y::write(y, i, f(A::read(a, i), B::read(b, i)));
  if (const int left = n - i; left > 0) Y::write(y, i, f(A::read(a, i, left), B::read(b, i, left)), left);
}
template <class Y, class A, class B, class C, class F>
static inline FI_FORCED void loop3(F f, TileArg a, TileArg b, TileArg c, void* y, int n) {
  int i = 0;
  for (; i + VF::W <= n; i += VF::W) Y::write(y, i, f(A::read(a, i), B::read(b, i), C::read(c, i)));
  if (const int left = n - i; left > 0)
    Y::write(y, i, f(A::read(a, i, left), B::read(b, i, left), C::read(c, i, left)), left);
}

#define FI_LOOP_F_F(f) loop1<Float, Float>([](VF a) FI_FORCED { return f; }, a, y, n)
#define FI_LOOP_B_F(f) loop1<Bool, Float>([](VF a) FI_FORCED { return f; }, a, y, n)
#define FI_LOOP_B_B(f) loop1<Bool, Bool>([](VM a) FI_FORCED { return f; }, a, y, n)
#define FI_LOOP_F_FF(f) loop2<Float, Float, Float>([](VF a, VF b) FI_FORCED { return f; }, a, b, y, n)
#define FI_LOOP_B_FF(f) loop2<Bool, Float, Float>([](VF a, VF b) FI_FORCED { return f; }, a, b, y, n)
#define FI_LOOP_B_BB(f) loop2<Bool, Bool, Bool>([](VM a, VM b) FI_FORCED { return f; }, a, b, y, n)
#define FI_LOOP_F_FFF(f) loop3<Float, Float, Float, Float>([](VF a, VF b, VF c) FI_FORCED { return f; }, a, b, c, y, n)
#define FI_LOOP_F_BFF(f) loop3<Float, Bool, Float, Float>([](VM a, VF b, VF c) FI_FORCED { return f; }, a, b, c, y, n)

#define FI_TILE(name, signature, cost, expression) \
  static void tile_##name(TileArg a, TileArg b, TileArg c, void* y, int n) { FI_LOOP_##signature((expression)); }
#include "kernels/pointwise/tile_ops.inc"
#undef FI_TILE

static constexpr TileFn kTileFns[] = {
#define FI_TILE(name, signature, cost, expression) tile_##name,
#include "kernels/pointwise/tile_ops.inc"
#undef FI_TILE
};

}  // namespace fi::FI_ISA
