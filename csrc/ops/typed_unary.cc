// SPDX-License-Identifier: Apache-2.0
// Loops of one operand: float64 through the C library, and the operators that integers have. Pow of any two types.
#include <algorithm>
#include <cmath>
#include <limits>

#include "csrc/ops/typed_step.h"

namespace fi {
namespace {

struct Named {
  const char* op;
  RowFn fn;
};

using Function = double (*)(double x, double alpha, double beta);
template <Function f>
Status each(const TypedRow& r) {
  for (int64_t i = 0; i < r.n; ++i) r.out<double>(i) = f(r.in<double>(0, i), r.alpha, r.beta);
  return Status::ok;
}
template <Function f>
Status test(const TypedRow& r) {
  for (int64_t i = 0; i < r.n; ++i) r.out<uint8_t>(i) = f(r.in<double>(0, i), r.alpha, r.beta) != 0;
  return Status::ok;
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double softplus(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); }
double clamp01(double x) { return x < 0 ? 0 : x > 1 ? 1 : x; }
double sign(double x) { return x != x ? x : static_cast<double>((x > 0) - (x < 0)); }
double gelu_tanh(double x) { return 0.5 * x * (1 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x))); }

#define FI_F64(name, expression) \
  {name, each<[](double x, [[maybe_unused]] double a, [[maybe_unused]] double b) -> double { return (expression); }>}
constexpr Named kDouble[] = {
    FI_F64("Abs", std::abs(x)),
    FI_F64("Neg", -x),
    FI_F64("Exp", std::exp(x)),
    FI_F64("Log", std::log(x)),
    FI_F64("Sqrt", std::sqrt(x)),
    FI_F64("Reciprocal", 1 / x),
    FI_F64("Erf", std::erf(x)),
    FI_F64("Tanh", std::tanh(x)),
    FI_F64("Sigmoid", sigmoid(x)),
    FI_F64("Relu", x < 0 ? 0 : x),
    FI_F64("LeakyRelu", x < 0 ? a * x : x),
    FI_F64("Elu", x < 0 ? a * std::expm1(x) : x),
    FI_F64("Selu", b*(x < 0 ? a * std::expm1(x) : x)),
    FI_F64("Celu", x < 0 ? a * std::expm1(x / a) : x),
    FI_F64("ThresholdedRelu", x > a ? x : 0),
    FI_F64("Softplus", softplus(x)),
    FI_F64("Softsign", x / (1 + std::abs(x))),
    FI_F64("HardSigmoid", clamp01(a* x + b)),
    FI_F64("HardSwish", x* clamp01(x / 6 + 0.5)),
    FI_F64("Mish", x* std::tanh(softplus(x))),
    FI_F64("Gelu", a != 0 ? gelu_tanh(x) : 0.5 * x * (1 + std::erf(x * 0.7071067811865476))),
    FI_F64("Swish", x* sigmoid(a* x)),
    FI_F64("Shrink", x<-b ? x + a : x> b ? x - a : 0),
    FI_F64("Floor", std::floor(x)),
    FI_F64("Ceil", std::ceil(x)),
    FI_F64("Round", std::nearbyint(x)),
    FI_F64("Sign", sign(x)),
    FI_F64("Sin", std::sin(x)),
    FI_F64("Cos", std::cos(x)),
    FI_F64("Tan", std::tan(x)),
    FI_F64("Asin", std::asin(x)),
    FI_F64("Acos", std::acos(x)),
    FI_F64("Atan", std::atan(x)),
    FI_F64("Sinh", std::sinh(x)),
    FI_F64("Cosh", std::cosh(x)),
    FI_F64("Asinh", std::asinh(x)),
    FI_F64("Acosh", std::acosh(x)),
    FI_F64("Atanh", std::atanh(x)),
    FI_F64("divide", x / a),
    {"IsNaN", test<[](double x, double, double) -> double { return x != x; }>},
    {"IsInf", test<[](double x, double a, double b) -> double { return std::isinf(x) && (x < 0 ? a : b) != 0; }>},
};
#undef FI_F64

template <class T, class F>
Status each_integer(const TypedRow& r, F f) {
  for (int64_t i = 0; i < r.n; ++i)
    r.out<T>(i) = static_cast<T>(f(static_cast<uint64_t>(r.in<T>(0, i)), r.in<T>(0, i)));
  return Status::ok;
}
// The first argument has the bits (so that wrapping is defined), the second the value.
template <class T>
Status absolute(const TypedRow& r) {
  return each_integer<T>(r, [](uint64_t bits, T v) { return v < 0 ? uint64_t{0} - bits : bits; });
}
template <class T>
Status negate(const TypedRow& r) {
  return each_integer<T>(r, [](uint64_t bits, T) { return uint64_t{0} - bits; });
}
template <class T>
Status sign_of(const TypedRow& r) {
  return each_integer<T>(r, [](uint64_t, T v) { return (v > 0) - (v < 0); });
}
template <class T>
Status positive(const TypedRow& r) {
  return each_integer<T>(r, [](uint64_t, T v) { return v < 0 ? T{0} : v; });
}
template <class T>
Status invert(const TypedRow& r) {
  return each_integer<T>(r, [](uint64_t bits, T) { return ~bits; });
}

template <class T>
RowFn integer(const std::string& op) {
  const Named rows[] = {
      {"Abs", absolute<T>}, {"Neg", negate<T>}, {"Sign", sign_of<T>}, {"Relu", positive<T>}, {"BitwiseNot", invert<T>}};
  for (const Named& row : rows)
    if (op == row.op) return row.fn;
  return nullptr;
}

// x^y modulo 2^64; a negative power of a whole number is 0 but for ±1 (numpy refuses it).
uint64_t whole_power(uint64_t x, uint64_t y, bool negative_power) {
  if (negative_power) {
    if (x == 1) return 1;
    return x == ~uint64_t{0} ? (y & 1 ? x : 1) : 0;
  }
  uint64_t result = 1;
  for (; y; y >>= 1, x *= x)
    if (y & 1) result *= x;
  return result;
}

template <class X, class Y>
Status power(const TypedRow& r) {
  for (int64_t i = 0; i < r.n; ++i) {
    const X x = r.in<X>(0, i);
    const Y y = r.in<Y>(1, i);
    if constexpr (std::is_integral_v<X> && std::is_integral_v<Y>) {
      r.out<X>(i) = static_cast<X>(whole_power(static_cast<uint64_t>(x), static_cast<uint64_t>(y), y < 0));
    } else {
      const double p = std::pow(static_cast<double>(x), static_cast<double>(y));
      if constexpr (std::is_integral_v<X>) {
        const bool fits = p > static_cast<double>(std::numeric_limits<X>::min()) - 1 && p < 0x1p62;
        r.out<X>(i) = fits ? static_cast<X>(static_cast<int64_t>(p)) : std::numeric_limits<X>::min();
      } else {
        r.out<X>(i) = static_cast<X>(p);
      }
    }
  }
  return Status::ok;
}

template <class X>
RowFn power_of(DType exponent) {
  switch (exponent) {
    case DType::f32:
      return power<X, float>;
    case DType::f64:
      return power<X, double>;
    case DType::s8:
      return power<X, int8_t>;
    case DType::s16:
      return power<X, int16_t>;
    case DType::s32:
      return power<X, int32_t>;
    case DType::s64:
      return power<X, int64_t>;
    case DType::u8:
      return power<X, uint8_t>;
    case DType::u16:
      return power<X, uint16_t>;
    case DType::u32:
      return power<X, uint32_t>;
    case DType::u64:
      return power<X, uint64_t>;
    default:
      return nullptr;
  }
}

}  // namespace

RowFn typed_unary(const std::string& op, DType t) {
  switch (t) {
    case DType::f64:
      for (const Named& row : kDouble)
        if (op == row.op) return row.fn;
      return nullptr;
    case DType::s8:
      return integer<int8_t>(op);
    case DType::s16:
      return integer<int16_t>(op);
    case DType::s32:
      return integer<int32_t>(op);
    case DType::s64:
      return integer<int64_t>(op);
    case DType::u8:
      return integer<uint8_t>(op);
    case DType::u16:
      return integer<uint16_t>(op);
    case DType::u32:
      return integer<uint32_t>(op);
    case DType::u64:
      return integer<uint64_t>(op);
    default:
      return nullptr;
  }
}

RowFn typed_pow(DType base, DType exponent) {
  switch (base) {
    case DType::f32:
      return power_of<float>(exponent);
    case DType::f64:
      return power_of<double>(exponent);
    case DType::s32:
      return power_of<int32_t>(exponent);
    case DType::s64:
      return power_of<int64_t>(exponent);
    default:
      return nullptr;
  }
}

}  // namespace fi
