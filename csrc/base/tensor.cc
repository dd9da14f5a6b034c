// SPDX-License-Identifier: Apache-2.0
#include "csrc/base/tensor.h"

#include <sys/mman.h>

#include <cstdlib>

namespace fi {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

}  // namespace

std::shared_ptr<void> allocate_bytes(size_t bytes) {
  // Huge pages where whole ones fit: matrix products with cold weights gain 2 to 5 % (a panel of 768 x 64 floats is 48
  // small pages).
  const size_t align = bytes >= kHugePage ? kHugePage : kAlign;
  const size_t rounded = (bytes + kAlign - 1) / kAlign * kAlign;
  void* p = nullptr;
  if (posix_memalign(&p, align, rounded ? rounded : kAlign) != 0)
    throw Error(words("out of memory: ", bytes, " bytes"));
  // Advice only: a kernel that refuses it leaves small pages.
  if (align == kHugePage) madvise(p, rounded / kHugePage * kHugePage, MADV_HUGEPAGE);
  return {p, std::free};
}

Tensor allocate_tensor(DType dtype, const Shape& shape) {
  Tensor t{{dtype, shape}, nullptr, nullptr};
  t.owner = allocate_bytes(t.desc.bytes());
  t.data = t.owner.get();
  return t;
}

}  // namespace fi
