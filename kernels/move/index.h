// SPDX-License-Identifier: Apache-2.0
// Indices that come from data: negative ones count from the end, everything is checked before it is used.
#pragma once
#include <cstdint>

#include "csrc/base/dtype.h"
#include "csrc/base/step.h"

namespace fi {

// Element type of an index tensor.
enum class IndexType : int32_t { s32, s64 };

template <class I>
inline bool wrap_index(I given, int64_t extent, int64_t& index) {
  index = static_cast<int64_t>(given);
  if (index < 0) index += extent;
  return static_cast<uint64_t>(index) < static_cast<uint64_t>(extent);
}

inline Status wrong_index(int64_t given, int64_t extent) { return bad_index(given, -extent, extent); }

// f(const int32_t*) or f(const int64_t*)
template <class F>
inline auto with_index(IndexType t, const void* p, F f) {
  return t == IndexType::s32 ? f(static_cast<const int32_t*>(p)) : f(static_cast<const int64_t*>(p));
}

}  // namespace fi
