// SPDX-License-Identifier: Apache-2.0
// Loops of two operands. Integers wrap around; integer division truncates; Mod with fmod=0 has the divisor's sign.
#include <cmath>
#include <type_traits>

#include "csrc/ops/typed_step.h"

namespace fi {
namespace {

// Where wrapping is defined: unsigned, and wide enough not to be promoted to int.
template <class T>
struct Wrapping {
  using type = std::conditional_t<(sizeof(T) < 4), uint32_t, std::make_unsigned_t<T>>;
};
template <>
struct Wrapping<float> {
  using type = float;
};
template <>
struct Wrapping<double> {
  using type = double;
};
template <class T>
using W = typename Wrapping<T>::type;

// Loops with a fixed step, which the compiler can vectorise.
template <class Y, class T, class F>
Status loop2(const TypedRow& r, F f) {
  const T *a = static_cast<const T*>(r.x[0]), *b = static_cast<const T*>(r.x[1]);
  Y* y = static_cast<Y*>(r.y);
  if (r.step[0] && r.step[1]) {
    for (int64_t i = 0; i < r.n; ++i) y[i] = static_cast<Y>(f(a[i], b[i]));
  } else if (r.step[0]) {
    const T value = *b;
    for (int64_t i = 0; i < r.n; ++i) y[i] = static_cast<Y>(f(a[i], value));
  } else {
    const T value = *a;
    const int64_t step = r.step[1];
    for (int64_t i = 0; i < r.n; ++i) y[i] = static_cast<Y>(f(value, b[i * step]));
  }
  return Status::ok;
}
template <class T, class F>
Status each2(const TypedRow& r, F f) {
  return loop2<T, T>(r, f);
}

template <class T>
Status add(const TypedRow& r) {
  return each2<T>(r, [](T a, T b) { return static_cast<W<T>>(a) + static_cast<W<T>>(b); });
}
template <class T>
Status sub(const TypedRow& r) {
  return each2<T>(r, [](T a, T b) { return static_cast<W<T>>(a) - static_cast<W<T>>(b); });
}
template <class T>
Status mul(const TypedRow& r) {
  return each2<T>(r, [](T a, T b) { return static_cast<W<T>>(a) * static_cast<W<T>>(b); });
}
template <class T>
Status maximum(const TypedRow& r) {
  return each2<T>(r, [](T a, T b) { return a != a || a > b ? a : b; });
}
template <class T>
Status minimum(const TypedRow& r) {
  return each2<T>(r, [](T a, T b) { return a != a || a < b ? a : b; });
}

template <class T>
bool any_zero(const TypedRow& r) {
  for (int64_t i = 0; i < r.n; ++i)
    if (r.in<T>(1, i) == 0) return true;
  return false;
}
// -1 apart: the smallest number divided by it traps.
template <class T>
T quotient(T a, T b) {
  if constexpr (std::is_signed_v<T> && std::is_integral_v<T>)
    if (b == -1) return static_cast<T>(W<T>{0} - static_cast<W<T>>(a));
  return static_cast<T>(a / b);
}
template <class T>
T remainder(T a, T b) {
  if constexpr (std::is_signed_v<T>)
    if (b == -1) return 0;
  return static_cast<T>(a % b);
}
template <class T>
Status divide(const TypedRow& r) {
  if constexpr (std::is_integral_v<T>)
    if (any_zero<T>(r)) return Status::division_by_zero;
  return each2<T>(r, [](T a, T b) { return quotient(a, b); });
}
template <class T>
Status modulo(const TypedRow& r) {
  if constexpr (std::is_integral_v<T>) {
    if (any_zero<T>(r)) return Status::division_by_zero;
    if (r.alpha != 0) return each2<T>(r, [](T a, T b) { return remainder(a, b); });
    return each2<T>(r, [](T a, T b) {
      const T m = remainder(a, b);
      return static_cast<T>(m != 0 && (m < 0) != (b < 0) ? m + b : m);
    });
  } else {
    if (r.alpha != 0) return each2<T>(r, [](T a, T b) { return std::fmod(a, b); });
    return each2<T>(r, [](T a, T b) {
      const T m = std::fmod(a, b);
      return m != 0 && (m < 0) != (b < 0) ? m + b : m;
    });
  }
}

template <class T>
Status prelu(const TypedRow& r) {
  return each2<T>(r, [](T a, T b) { return a < 0 ? static_cast<T>(static_cast<W<T>>(a) * static_cast<W<T>>(b)) : a; });
}
template <class T>
Status bit_and(const TypedRow& r) {
  return each2<T>(r, [](T a, T b) { return a & b; });
}
template <class T>
Status bit_or(const TypedRow& r) {
  return each2<T>(r, [](T a, T b) { return a | b; });
}
template <class T>
Status bit_xor(const TypedRow& r) {
  return each2<T>(r, [](T a, T b) { return a ^ b; });
}
// alpha: 1 left, 0 right. A shift by the width or more leaves nothing.
template <class T>
Status bit_shift(const TypedRow& r) {
  constexpr T width = sizeof(T) * 8;
  if (r.alpha != 0) return each2<T>(r, [](T a, T b) { return b < width ? static_cast<W<T>>(a) << b : 0; });
  return each2<T>(r, [](T a, T b) { return b < width ? a >> b : 0; });
}

struct Named {
  const char* op;
  RowFn fn;
};
RowFn pick(const std::string& op, std::initializer_list<Named> rows) {
  for (const Named& row : rows)
    if (op == row.op) return row.fn;
  return nullptr;
}

template <class T>
RowFn arithmetic(const std::string& op) {
  RowFn fn = pick(op, {{"Add", add<T>},
                       {"Sum", add<T>},
                       {"Mean", add<T>},
                       {"Sub", sub<T>},
                       {"Mul", mul<T>},
                       {"Div", divide<T>},
                       {"Max", maximum<T>},
                       {"Min", minimum<T>},
                       {"Mod", modulo<T>},
                       {"PRelu", prelu<T>}});
  if constexpr (std::is_integral_v<T>)
    if (!fn) fn = pick(op, {{"BitwiseAnd", bit_and<T>}, {"BitwiseOr", bit_or<T>}, {"BitwiseXor", bit_xor<T>}});
  if constexpr (std::is_unsigned_v<T>)
    if (!fn) fn = pick(op, {{"BitShift", bit_shift<T>}});
  return fn;
}

template <class T, class F>
Status compare2(const TypedRow& r, F f) {
  return loop2<uint8_t, T>(r, f);
}
template <class T>
Status equal(const TypedRow& r) {
  return compare2<T>(r, [](T a, T b) { return a == b; });
}
template <class T>
Status less(const TypedRow& r) {
  return compare2<T>(r, [](T a, T b) { return a < b; });
}
template <class T>
Status less_equal(const TypedRow& r) {
  return compare2<T>(r, [](T a, T b) { return a <= b; });
}
template <class T>
Status greater(const TypedRow& r) {
  return compare2<T>(r, [](T a, T b) { return a > b; });
}
template <class T>
Status greater_equal(const TypedRow& r) {
  return compare2<T>(r, [](T a, T b) { return a >= b; });
}
template <class T>
RowFn comparison(const std::string& op) {
  return pick(op, {{"Equal", equal<T>},
                   {"Less", less<T>},
                   {"LessOrEqual", less_equal<T>},
                   {"Greater", greater<T>},
                   {"GreaterOrEqual", greater_equal<T>}});
}

template <class T>
Status where(const TypedRow& r) {
  for (int64_t i = 0; i < r.n; ++i) r.out<T>(i) = r.in<uint8_t>(0, i) ? r.in<T>(1, i) : r.in<T>(2, i);
  return Status::ok;
}
struct Wide {
  uint64_t half[2];
};

}  // namespace

RowFn typed_binary(const std::string& op, DType t) {
  switch (t) {
    case DType::f32:
      return arithmetic<float>(op);
    case DType::f64:
      return arithmetic<double>(op);
    case DType::s8:
      return arithmetic<int8_t>(op);
    case DType::s16:
      return arithmetic<int16_t>(op);
    case DType::s32:
      return arithmetic<int32_t>(op);
    case DType::s64:
      return arithmetic<int64_t>(op);
    case DType::u8:
      return arithmetic<uint8_t>(op);
    case DType::u16:
      return arithmetic<uint16_t>(op);
    case DType::u32:
      return arithmetic<uint32_t>(op);
    case DType::u64:
      return arithmetic<uint64_t>(op);
    default:
      return nullptr;
  }
}

RowFn typed_compare(const std::string& op, DType t) {
  switch (t) {
    case DType::f64:
      return comparison<double>(op);
    case DType::s8:
      return comparison<int8_t>(op);
    case DType::s16:
      return comparison<int16_t>(op);
    case DType::s32:
      return comparison<int32_t>(op);
    case DType::s64:
      return comparison<int64_t>(op);
    case DType::boolean:
    case DType::u8:
      return comparison<uint8_t>(op);
    case DType::u16:
      return comparison<uint16_t>(op);
    case DType::u32:
      return comparison<uint32_t>(op);
    case DType::u64:
      return comparison<uint64_t>(op);
    default:
      return nullptr;
  }
}

RowFn typed_where(size_t element_bytes) {
  switch (element_bytes) {
    case 1:
      return where<uint8_t>;
    case 2:
      return where<uint16_t>;
    case 4:
      return where<uint32_t>;
    case 8:
      return where<uint64_t>;
    case 16:
      return where<Wide>;
    default:
      return nullptr;
  }
}

}  // namespace fi
