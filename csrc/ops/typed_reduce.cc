// SPDX-License-Identifier: Apache-2.0
#include "csrc/ops/typed_reduce.h"

#include <cmath>
#include <limits>
#include <type_traits>

#include "kernels/reduce/reduce.h"

namespace fi {
namespace {

// Integers are summed in 64 bits, unsigned so that wrapping is defined.
template <class T>
using Total = std::conditional_t<std::is_floating_point_v<T>, double, uint64_t>;

template <class T, class F>
Total<T> total(const T* x, int64_t n, int64_t stride, Total<T> start, F f) {
  for (int64_t k = 0; k < n; ++k) start = f(start, x[k * stride]);
  return start;
}

template <class T>
T extreme(const T* x, int64_t n, int64_t stride, bool largest) {
  using Limits = std::numeric_limits<T>;
  constexpr bool real = std::is_floating_point_v<T>;
  T best = largest ? (real ? static_cast<T>(-INFINITY) : Limits::lowest())
                   : (real ? static_cast<T>(INFINITY) : Limits::max());
  for (int64_t k = 0; k < n; ++k) {
    const T v = x[k * stride];
    if (v != v) return v;
    if (largest ? v > best : v < best) best = v;
  }
  return best;
}

template <class T>
double log_sum_exp(const T* x, int64_t n, int64_t stride) {
  double top = -INFINITY, sum = 0;
  for (int64_t k = 0; k < n; ++k) {
    const auto v = static_cast<double>(x[k * stride]);
    if (v != v) return v;
    top = std::fmax(top, v);
  }
  if (std::isinf(top)) return top;
  for (int64_t k = 0; k < n; ++k) sum += std::exp(static_cast<double>(x[k * stride]) - top);
  return top + std::log(sum);
}

template <class T>
T finish(Total<T> sum, Finish f, int64_t count) {
  const auto value = static_cast<double>(static_cast<std::conditional_t<std::is_floating_point_v<T>, double, T>>(sum));
  double v = value;
  if (f == Finish::mean) v = value / static_cast<double>(count);
  if (f == Finish::root) v = std::sqrt(value);
  if (f == Finish::log) v = std::log(value);
  if (f == Finish::none) return static_cast<T>(sum);
  if constexpr (std::is_integral_v<T>)
    if (!std::isfinite(v)) return 0;
  return static_cast<T>(v);
}

template <class T>
T reduce_one(const ReduceParams& p, const T* x) {
  using A = Total<T>;
  switch (p.fold) {
    case Fold::max:
      return extreme(x, p.n, p.inner, true);
    case Fold::min:
      return extreme(x, p.n, p.inner, false);
    case Fold::log_sum_exp:
      return static_cast<T>(log_sum_exp(x, p.n, p.inner));
    case Fold::sum:
      return finish<T>(total(x, p.n, p.inner, A(0), [](A a, T v) { return a + static_cast<A>(v); }), p.finish, p.count);
    case Fold::product:
      return finish<T>(total(x, p.n, p.inner, A(1), [](A a, T v) { return a * static_cast<A>(v); }), p.finish, p.count);
    case Fold::sum_square:
      return finish<T>(total(x, p.n, p.inner, A(0), [](A a, T v) { return a + static_cast<A>(v) * static_cast<A>(v); }),
                       p.finish, p.count);
    case Fold::sum_abs:
      return finish<T>(
          total(x, p.n, p.inner, A(0), [](A a, T v) { return v < 0 ? a - static_cast<A>(v) : a + static_cast<A>(v); }),
          p.finish, p.count);
  }
  return T{};
}

template <class T>
Status reduce(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const ReduceParams*>(params);
  const Range r = part_of(p.outer * p.inner, part, parts);
  for (int64_t u = r.begin; u < r.end; ++u)
    static_cast<T*>(args[1])[u] =
        reduce_one(p, static_cast<const T*>(args[0]) + u / p.inner * p.n * p.inner + u % p.inner);
  return Status::ok;
}

template <class T>
Status arg_best(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const ArgParams*>(params);
  const Range r = part_of(p.outer * p.inner, part, parts);
  for (int64_t u = r.begin; u < r.end; ++u) {
    const T* x = static_cast<const T*>(args[0]) + u / p.inner * p.n * p.inner + u % p.inner;
    int64_t best = 0;
    T value = x[0];
    for (int64_t k = 1; k < p.n; ++k) {
      const T v = x[k * p.inner];
      const bool better = p.smallest ? v < value : v > value;
      // The first NaN (or the last) counts as the largest and as the smallest, as in numpy.
      if (better || (p.last && v == value) || (v != v && (value == value || p.last))) {
        if (value != value && v == v) continue;
        best = k;
        value = v;
      }
    }
    static_cast<int64_t*>(args[1])[u] = best;
  }
  return Status::ok;
}

template <class T>
Status cumulate(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const CumulateParams*>(params);
  const Range r = part_of(p.outer * p.inner, part, parts);
  using A = Total<T>;
  for (int64_t u = r.begin; u < r.end; ++u) {
    const int64_t first = u / p.inner * p.n * p.inner + u % p.inner;
    const T* x = static_cast<const T*>(args[0]) + first;
    T* y = static_cast<T*>(args[1]) + first;
    A so_far = p.product;
    for (int64_t i = 0; i < p.n; ++i) {
      const int64_t k = (p.reverse ? p.n - 1 - i : i) * p.inner;
      const T v = x[k];
      const A next = p.product ? so_far * static_cast<A>(v) : so_far + static_cast<A>(v);
      y[k] = static_cast<T>(p.exclusive ? so_far : next);
      so_far = next;
    }
  }
  return Status::ok;
}

}  // namespace

#define FI_NUMBER_TYPES(fn) \
  case DType::f64:          \
    return fn<double>;      \
  case DType::s8:           \
    return fn<int8_t>;      \
  case DType::s16:          \
    return fn<int16_t>;     \
  case DType::s32:          \
    return fn<int32_t>;     \
  case DType::s64:          \
    return fn<int64_t>;     \
  case DType::u8:           \
    return fn<uint8_t>;     \
  case DType::u16:          \
    return fn<uint16_t>;    \
  case DType::u32:          \
    return fn<uint32_t>;    \
  case DType::u64:          \
    return fn<uint64_t>;

StepFn typed_reduce(DType t) {
  switch (t) {
    FI_NUMBER_TYPES(reduce)
    case DType::boolean:
      return reduce<uint8_t>;
    default:
      return nullptr;
  }
}
StepFn typed_arg(DType t) {
  switch (t) {
    FI_NUMBER_TYPES(arg_best)
    case DType::f32:
      return arg_best<float>;
    default:
      return nullptr;
  }
}
StepFn typed_cumulate(DType t) {
  switch (t) {
    FI_NUMBER_TYPES(cumulate)
    case DType::f32:
      return cumulate<float>;
    default:
      return nullptr;
  }
}
#undef FI_NUMBER_TYPES

}  // namespace fi
