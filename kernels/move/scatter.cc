// SPDX-License-Identifier: Apache-2.0
#include "kernels/move/scatter.h"

#include <cmath>
#include <cstring>
#include <type_traits>

namespace fi {
namespace {

// Calls f.template operator()<T>() with the C++ type of a reducible dtype.
template <class F>
Status with_type(DType t, F f) {
  switch (t) {
    case DType::f32:
      return f.template operator()<float>();
    case DType::f64:
      return f.template operator()<double>();
    case DType::s64:
      return f.template operator()<int64_t>();
    case DType::s32:
      return f.template operator()<int32_t>();
    case DType::s16:
      return f.template operator()<int16_t>();
    case DType::s8:
      return f.template operator()<int8_t>();
    case DType::u64:
      return f.template operator()<uint64_t>();
    case DType::u32:
      return f.template operator()<uint32_t>();
    case DType::u16:
      return f.template operator()<uint16_t>();
    case DType::u8:
      return f.template operator()<uint8_t>();
    default:
      return Status::bad_value;
  }
}

// For plain writing only the size counts.
struct Wide16 {
  uint64_t a, b;
};
template <class F>
Status with_size(DType t, F f) {
  switch (size_of(t)) {
    case 1:
      return f.template operator()<uint8_t>();
    case 2:
      return f.template operator()<uint16_t>();
    case 4:
      return f.template operator()<uint32_t>();
    case 8:
      return f.template operator()<uint64_t>();
    case 16:
      return f.template operator()<Wide16>();
    default:
      return Status::bad_value;
  }
}

// Integers wrap around; min and max of floats pass NaN on, as numpy does.
template <class T, Reduction R>
T combine(T a, T b) {
  if constexpr (R == Reduction::none) {
    return b;
  } else if constexpr (R == Reduction::min || R == Reduction::max) {
    if (a != a) return a;
    return b != b || (R == Reduction::min ? b < a : a < b) ? b : a;
  } else if constexpr (std::is_integral_v<T>) {
    const auto x = static_cast<uint64_t>(a), y = static_cast<uint64_t>(b);
    return static_cast<T>(R == Reduction::add ? x + y : x * y);
  } else {
    return R == Reduction::add ? a + b : a * b;
  }
}

// f.template operator()<T, R>() for a dtype and reduction.
template <class F>
Status with_combine(DType t, Reduction r, F f) {
  switch (r) {
    case Reduction::none:
      return with_size(t, [&]<class T>() { return f.template operator()<T, Reduction::none>(); });
    case Reduction::add:
      return with_type(t, [&]<class T>() { return f.template operator()<T, Reduction::add>(); });
    case Reduction::mul:
      return with_type(t, [&]<class T>() { return f.template operator()<T, Reduction::mul>(); });
    case Reduction::min:
      return with_type(t, [&]<class T>() { return f.template operator()<T, Reduction::min>(); });
    case Reduction::max:
      return with_type(t, [&]<class T>() { return f.template operator()<T, Reduction::max>(); });
  }
  return Status::bad_value;
}

void start_from(const void* data, void* y, int64_t bytes) {
  if (data != y && bytes > 0) std::memcpy(y, data, bytes);
}

template <class T, Reduction R, class I>
Status scatter_lines(const ScatterElements& p, const I* index, const T* updates, T* y) {
  const int last = p.rank - 1;
  const int64_t n = p.shape[last], along = p.axis == last ? 0 : p.stride[last], step = p.stride[p.axis];
  int64_t lines = 1;
  for (int k = 0; k < last; ++k) lines *= p.shape[k];
  for (int64_t line = 0; line < lines; ++line, index += n, updates += n) {
    T* row = y;
    for (int64_t k = last - 1, rest = line; k >= 0; rest /= p.shape[k], --k)
      if (k != p.axis) row += rest % p.shape[k] * p.stride[k];
    for (int64_t j = 0; j < n; ++j) {
      int64_t i;
      if (!wrap_index(index[j], p.extent, i)) return wrong_index(index[j], p.extent);
      T& target = row[j * along + i * step];
      target = combine<T, R>(target, updates[j]);
    }
  }
  return Status::ok;
}

template <class T, Reduction R, class I>
Status scatter_tuples(const ScatterND& p, const I* index, const T* updates, T* y) {
  for (int64_t n = 0; n < p.count; ++n, index += p.depth, updates += p.row) {
    T* row = y;
    for (int d = 0; d < p.depth; ++d) {
      int64_t i;
      if (!wrap_index(index[d], p.extent[d], i)) return wrong_index(index[d], p.extent[d]);
      row += i * p.stride[d];
    }
    if constexpr (R == Reduction::none) {
      std::memcpy(row, updates, p.row * sizeof(T));
    } else {
      for (int64_t j = 0; j < p.row; ++j) row[j] = combine<T, R>(row[j], updates[j]);
    }
  }
  return Status::ok;
}

}  // namespace

bool can_reduce(DType t, Reduction r) {
  return r == Reduction::none || is_integer(t) || t == DType::f32 || t == DType::f64;
}

Status scatter_elements(const void* params, void* const* args, int, int) {
  const auto& p = *static_cast<const ScatterElements*>(params);
  start_from(args[0], args[3], p.bytes);
  return with_combine(p.dtype, p.reduction, [&]<class T, Reduction R>() {
    return with_index(p.index, args[1], [&](auto* index) {
      return scatter_lines<T, R>(p, index, static_cast<const T*>(args[2]), static_cast<T*>(args[3]));
    });
  });
}

Status scatter_nd(const void* params, void* const* args, int, int) {
  const auto& p = *static_cast<const ScatterND*>(params);
  start_from(args[0], args[3], p.bytes);
  return with_combine(p.dtype, p.reduction, [&]<class T, Reduction R>() {
    return with_index(p.index, args[1], [&](auto* index) {
      return scatter_tuples<T, R>(p, index, static_cast<const T*>(args[2]), static_cast<T*>(args[3]));
    });
  });
}

Status scatter_rows(const void* params, void* const* args, int, int) {
  const auto& p = *static_cast<const ScatterRows*>(params);
  start_from(args[0], args[3], p.bytes);
  const auto* updates = static_cast<const char*>(args[1]);
  for (int64_t b = 0; b < p.batches; ++b) {
    int64_t first = args[2] ? with_index(p.index, args[2], [&](auto* f) { return static_cast<int64_t>(f[b]); }) : 0;
    if (p.circular && first >= 0) first %= p.extent;
    const int64_t end = p.circular ? p.extent : p.extent - p.count + 1;
    if (first < 0 || first >= end) return bad_index(first, 0, end);
    for (int64_t plane = b * p.planes; plane < (b + 1) * p.planes; ++plane) {
      char* y = static_cast<char*>(args[3]) + plane * p.extent * p.row;
      for (int64_t s = 0; s < p.count; ++s, updates += p.row)
        std::memcpy(y + (first + s) % p.extent * p.row, updates, p.row);
    }
  }
  return Status::ok;
}

}  // namespace fi
