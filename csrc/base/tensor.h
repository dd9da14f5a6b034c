// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>

#include "csrc/base/shape.h"

namespace fi {

// A dense row-major tensor that shares its storage, or an opaque object (desc.dtype == opaque) owned by the front end.
struct Tensor {
  Desc desc;
  void* data = nullptr;
  std::shared_ptr<void> owner;

  template <class T>
  const T* as() const {
    return static_cast<const T*>(data);
  }
  explicit operator bool() const { return desc.dtype != DType::none; }
};

constexpr size_t kAlign = 64;
// 64-byte aligned memory; at least one line even for zero bytes, so that data is never null.
std::shared_ptr<void> allocate_bytes(size_t bytes);
Tensor allocate_tensor(DType, const Shape&);

}  // namespace fi
