// SPDX-License-Identifier: Apache-2.0
#include "csrc/base/tensor.h"

#include <cstdlib>

namespace fi {

std::shared_ptr<void> allocate_bytes(size_t bytes) {
  const size_t rounded = (bytes + kAlign - 1) / kAlign * kAlign;
  void* p = std::aligned_alloc(kAlign, rounded ? rounded : kAlign);
  if (!p) throw Error(words("out of memory: ", bytes, " bytes"));
  return {p, std::free};
}

Tensor allocate_tensor(DType dtype, const Shape& shape) {
  Tensor t{{dtype, shape}, nullptr, nullptr};
  t.owner = allocate_bytes(t.desc.bytes());
  t.data = t.owner.get();
  return t;
}

}  // namespace fi
