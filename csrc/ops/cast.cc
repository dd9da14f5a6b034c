// SPDX-License-Identifier: Apache-2.0
// Cast and CastLike between all number types. Where a float fits in float32 the conversion is a pointwise program;
// otherwise two loops over a small buffer of float64 or int64, so that n types need 2n loops.
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "csrc/ops/pointwise_step.h"

namespace fi {
namespace {

constexpr int kBuffer = 512;

union Numbers {
  double real[kBuffer];
  int64_t whole[kBuffer];
};

float half_to_float(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16, exponent = h >> 10 & 0x1f, mantissa = h & 0x3ff;
  if (exponent == 0) {
    const float v = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -v : v;
  }
  const uint32_t bits = sign | (exponent == 31 ? 0x7f800000 : (exponent + 112) << 23) | mantissa << 13;
  float v;
  std::memcpy(&v, &bits, 4);
  return v;
}
float bfloat_to_float(uint16_t h) {
  const uint32_t bits = static_cast<uint32_t>(h) << 16;
  float v;
  std::memcpy(&v, &bits, 4);
  return v;
}

// To float32 with the last bit set when inexact: a second rounding to 16 bits is then the only one.
uint32_t round_to_odd(double d) {
  auto v = static_cast<float>(d);
  uint32_t bits;
  std::memcpy(&bits, &v, 4);
  if (static_cast<double>(v) == d || d != d) return bits;
  if (std::abs(static_cast<double>(v)) > std::abs(d)) --bits;
  return bits | 1;
}
uint16_t to_bfloat(double d) {
  const uint32_t b = round_to_odd(d);
  if (d != d) return static_cast<uint16_t>(b >> 16 | 0x40);
  return static_cast<uint16_t>((b + 0x7fff + (b >> 16 & 1)) >> 16);
}
uint16_t to_half(double d) {
  const uint32_t b = round_to_odd(d), m = b & 0x7fffffff;
  const auto sign = static_cast<uint16_t>(b >> 16 & 0x8000);
  if (d != d) return static_cast<uint16_t>(sign | 0x7e00);
  if (m >= 0x47800000) return static_cast<uint16_t>(sign | 0x7c00);
  if (m < 0x38800000) {  // denormal: in units of 2^-24, half to even
    float v;
    std::memcpy(&v, &m, 4);
    return static_cast<uint16_t>(sign | static_cast<uint16_t>(std::nearbyint(static_cast<double>(v) * 0x1p24)));
  }
  return static_cast<uint16_t>(sign | (m - 0x38000000 + 0xfff + (m >> 13 & 1)) >> 13);
}

// Out of range gives the smallest number, as the machine's conversion does.
int64_t to_whole(double d) {
  return d >= -0x1p63 && d < 0x1p63 ? static_cast<int64_t>(d) : std::numeric_limits<int64_t>::min();
}

using Transfer = void (*)(const void* from, void* to, int64_t n);

template <class T>
void read_whole(const void* x, void* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    static_cast<Numbers*>(to)->whole[i] = static_cast<int64_t>(static_cast<const T*>(x)[i]);
}
template <class T>
void read_real(const void* x, void* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) static_cast<Numbers*>(to)->real[i] = static_cast<double>(static_cast<const T*>(x)[i]);
}
template <float (*convert)(uint16_t)>
void read_half(const void* x, void* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) static_cast<Numbers*>(to)->real[i] = convert(static_cast<const uint16_t*>(x)[i]);
}

template <class T>
void whole_to(const void* from, void* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) static_cast<T*>(y)[i] = static_cast<T>(static_cast<const Numbers*>(from)->whole[i]);
}
// Numbers of 2 and 4 bits: the low bits of a byte each.
template <int kBits>
void whole_to_bits(const void* from, void* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    static_cast<uint8_t*>(y)[i] = static_cast<const Numbers*>(from)->whole[i] & ((1 << kBits) - 1);
}
template <int kBits, bool kSigned>
void read_bits(const void* x, void* to, int64_t n) {
  constexpr int64_t sign = kSigned ? 1 << (kBits - 1) : 0;
  for (int64_t i = 0; i < n; ++i)
    static_cast<Numbers*>(to)->whole[i] = ((static_cast<const uint8_t*>(x)[i] & ((1 << kBits) - 1)) ^ sign) - sign;
}
void whole_to_bool(const void* from, void* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) static_cast<uint8_t*>(y)[i] = static_cast<const Numbers*>(from)->whole[i] != 0;
}
template <class T>
void unsigned_to(const void* from, void* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    static_cast<T*>(y)[i] = static_cast<T>(static_cast<uint64_t>(static_cast<const Numbers*>(from)->whole[i]));
}
template <uint16_t (*convert)(double), class Whole>
void whole_to_half(const void* from, void* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    static_cast<uint16_t*>(y)[i] =
        convert(static_cast<double>(static_cast<Whole>(static_cast<const Numbers*>(from)->whole[i])));
}

template <class T>
void real_to_float(const void* from, void* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) static_cast<T*>(y)[i] = static_cast<T>(static_cast<const Numbers*>(from)->real[i]);
}
template <uint16_t (*convert)(double)>
void real_to_half(const void* from, void* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) static_cast<uint16_t*>(y)[i] = convert(static_cast<const Numbers*>(from)->real[i]);
}
template <class T>
void real_to_whole(const void* from, void* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const double d = static_cast<const Numbers*>(from)->real[i];
    static_cast<T*>(y)[i] = static_cast<T>(to_whole(d));
  }
}
void real_to_s32(const void* from, void* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const double d = static_cast<const Numbers*>(from)->real[i];
    static_cast<int32_t*>(y)[i] =
        d > -0x1p31 - 1 && d < 0x1p31 ? static_cast<int32_t>(d) : std::numeric_limits<int32_t>::min();
  }
}
void real_to_u64(const void* from, void* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const double d = static_cast<const Numbers*>(from)->real[i];
    static_cast<uint64_t*>(y)[i] =
        d >= 0x1p63 && d < 0x1p64 ? static_cast<uint64_t>(d) : static_cast<uint64_t>(to_whole(d));
  }
}
template <int kBits>
void real_to_bits(const void* from, void* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    static_cast<uint8_t*>(y)[i] = to_whole(static_cast<const Numbers*>(from)->real[i]) & ((1 << kBits) - 1);
}
void real_to_bool(const void* from, void* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) static_cast<uint8_t*>(y)[i] = static_cast<const Numbers*>(from)->real[i] != 0;
}

struct Row {
  DType type;
  bool real;
  Transfer read, from_real, from_whole, from_unsigned;
};
constexpr Row kRows[] = {
    {DType::f32, true, read_real<float>, real_to_float<float>, whole_to<float>, unsigned_to<float>},
    {DType::f64, true, read_real<double>, real_to_float<double>, whole_to<double>, unsigned_to<double>},
    {DType::f16, true, read_half<half_to_float>, real_to_half<to_half>, whole_to_half<to_half, int64_t>,
     whole_to_half<to_half, uint64_t>},
    {DType::bf16, true, read_half<bfloat_to_float>, real_to_half<to_bfloat>, whole_to_half<to_bfloat, int64_t>,
     whole_to_half<to_bfloat, uint64_t>},
    {DType::s8, false, read_whole<int8_t>, real_to_whole<int8_t>, whole_to<int8_t>, whole_to<int8_t>},
    {DType::s16, false, read_whole<int16_t>, real_to_whole<int16_t>, whole_to<int16_t>, whole_to<int16_t>},
    {DType::s32, false, read_whole<int32_t>, real_to_s32, whole_to<int32_t>, whole_to<int32_t>},
    {DType::s64, false, read_whole<int64_t>, real_to_whole<int64_t>, whole_to<int64_t>, whole_to<int64_t>},
    {DType::u8, false, read_whole<uint8_t>, real_to_whole<uint8_t>, whole_to<uint8_t>, whole_to<uint8_t>},
    {DType::u16, false, read_whole<uint16_t>, real_to_whole<uint16_t>, whole_to<uint16_t>, whole_to<uint16_t>},
    {DType::u32, false, read_whole<uint32_t>, real_to_whole<uint32_t>, whole_to<uint32_t>, whole_to<uint32_t>},
    {DType::u64, false, read_whole<uint64_t>, real_to_u64, whole_to<uint64_t>, whole_to<uint64_t>},
    {DType::u4, false, read_bits<4, false>, real_to_bits<4>, whole_to_bits<4>, whole_to_bits<4>},
    {DType::s4, false, read_bits<4, true>, real_to_bits<4>, whole_to_bits<4>, whole_to_bits<4>},
    {DType::u2, false, read_bits<2, false>, real_to_bits<2>, whole_to_bits<2>, whole_to_bits<2>},
    {DType::s2, false, read_bits<2, true>, real_to_bits<2>, whole_to_bits<2>, whole_to_bits<2>},
    {DType::boolean, false, read_whole<uint8_t>, real_to_bool, whole_to_bool, whole_to_bool},
};
const Row* row_of(DType t) {
  for (const Row& r : kRows)
    if (r.type == t) return &r;
  return nullptr;
}

struct CastParams {
  Transfer read, write;
  int64_t n, x_bytes, y_bytes;
};
Status run_cast(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const CastParams*>(params);
  const Range r = part_of(p.n, part, parts, 64);
  Numbers buffer;
  for (int64_t i = r.begin; i < r.end; i += kBuffer) {
    const int64_t n = std::min<int64_t>(kBuffer, r.end - i);
    p.read(static_cast<const char*>(args[0]) + i * p.x_bytes, &buffer, n);
    p.write(&buffer, static_cast<char*>(args[1]) + i * p.y_bytes, n);
  }
  return Status::ok;
}

// Pairs of index arithmetic and masks, in one loop.
template <class X, class Y>
Status run_direct(const void* params, void* const* args, int part, int parts) {
  const Range r = part_of(static_cast<const CastParams*>(params)->n, part, parts, 64);
  const X* x = static_cast<const X*>(args[0]);
  Y* y = static_cast<Y*>(args[1]);
  for (int64_t i = r.begin; i < r.end; ++i) {
    if constexpr (std::is_same_v<Y, bool>) {
      y[i] = x[i] != 0;
    } else if constexpr (std::is_same_v<X, float> && std::is_same_v<Y, int64_t>) {
      y[i] = x[i] >= -0x1p63f && x[i] < 0x1p63f ? static_cast<int64_t>(x[i]) : std::numeric_limits<int64_t>::min();
    } else {
      y[i] = static_cast<Y>(x[i]);
    }
  }
  return Status::ok;
}
StepFn direct_cast(DType x, DType y) {
  struct Pair {
    DType x, y;
    StepFn run;
  };
  static constexpr Pair pairs[] = {
      {DType::f32, DType::s64, run_direct<float, int64_t>},
      {DType::s64, DType::f32, run_direct<int64_t, float>},
      {DType::s32, DType::s64, run_direct<int32_t, int64_t>},
      {DType::s64, DType::s32, run_direct<int64_t, int32_t>},
      {DType::s64, DType::boolean, run_direct<int64_t, bool>},
      {DType::s32, DType::boolean, run_direct<int32_t, bool>},
      {DType::boolean, DType::s64, run_direct<uint8_t, int64_t>},
      {DType::boolean, DType::s32, run_direct<uint8_t, int32_t>},
      {DType::f32, DType::f64, run_direct<float, double>},
      {DType::f64, DType::f32, run_direct<double, float>},
  };
  for (const Pair& p : pairs)
    if (p.x == x && p.y == y) return p.run;
  return nullptr;
}

bool is_float(DType t) { return t == DType::f32 || t == DType::f16 || t == DType::bf16; }
// Whether every value of the type is a float32.
bool fits_float(DType t) {
  return is_float(t) || t == DType::u8 || t == DType::s8 || t == DType::u16 || t == DType::s16;
}

TileProgramBuilder one_op(bool to_bool) {
  TileProgramBuilder b(1);
  b.output(to_bool ? b.op("_is_nonzero", 0) : b.op("where", 0, b.immediate(1), b.immediate(0)));
  b.finish();
  return b;
}

void plan_cast(PlanContext& ctx, const Node& node) {
  static const TileProgramBuilder to_bool = one_op(true), from_bool = one_op(false);
  const Desc x = ctx.input(0);
  const DType to = node.op == "CastLike" ? ctx.dtype(1) : static_cast<DType>(node.attributes.i("to"));
  if (to == x.dtype && to != DType::opaque && to != DType::string) return ctx.alias(0, 0, to, x.shape);
  const Row *from_row = row_of(x.dtype), *to_row = row_of(to);
  if (!from_row || !to_row) ctx.not_native(words(node.op, " from ", name_of(x.dtype), " to ", name_of(to)));
  const PointwiseArg in{ctx.in(0), x}, y{ctx.output(0, to, x.shape), {to, x.shape}};
  if (x.elements() == 0) return;
  if (is_float(to) && (fits_float(x.dtype) || (x.dtype == DType::s32 && to == DType::f32)))
    return add_number_cast(ctx, in, y);
  const auto one = [](const PointwiseArg& a) { return std::span<const PointwiseArg>(&a, 1); };
  if (is_float(x.dtype) && to == DType::boolean) return add_pointwise(ctx, to_bool, one(in), one(y));
  if (x.dtype == DType::boolean && is_float(to)) return add_pointwise(ctx, from_bool, one(in), one(y));
  const Transfer write = from_row->real          ? to_row->from_real
                         : x.dtype == DType::u64 ? to_row->from_unsigned
                                                 : to_row->from_whole;
  const CastParams p{from_row->read, write, x.elements(), static_cast<int64_t>(size_of(x.dtype)),
                     static_cast<int64_t>(size_of(to))};
  const StepFn direct = direct_cast(x.dtype, to);
  ctx.step("cast", direct ? direct : run_cast, p, {in.data, y.data},
           ctx.parts_for(static_cast<double>(x.elements()) * 4));
}

}  // namespace

std::unique_ptr<Op> make_cast(BuildContext& c) { return make_plain<plan_cast>(c); }

}  // namespace fi
