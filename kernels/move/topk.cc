// SPDX-License-Identifier: Apache-2.0
#include "kernels/move/topk.h"

#include <algorithm>

#include "kernels/move/order_key.h"

namespace fi {
namespace {

bool better(const TopKEntry& a, const TopKEntry& b) { return a.key > b.key || (a.key == b.key && a.index < b.index); }

template <class T>
TopKEntry entry_at(const TopK& p, const T* x, int64_t i) {
  const uint64_t key = order_key(x[i * p.inner]);
  return {p.largest ? key : ~key, i};
}

template <class T>
void select_in_copy(const TopK& p, const T* x, TopKEntry* e) {
  for (int64_t i = 0; i < p.n; ++i) e[i] = entry_at(p, x, i);
  if (p.k < p.n) std::nth_element(e, e + p.k, e + p.n, better);
  std::sort(e, e + p.k, better);
}

// The worst of the best k stands on top. A later element with the same key is worse, so a plain comparison decides.
template <class T>
void select_by_heap(const TopK& p, const T* x, TopKEntry* e) {
  for (int64_t i = 0; i < p.k; ++i) e[i] = entry_at(p, x, i);
  std::make_heap(e, e + p.k, better);
  for (int64_t i = p.k; i < p.n; ++i) {
    const TopKEntry next = entry_at(p, x, i);
    if (next.key <= e[0].key) continue;
    std::pop_heap(e, e + p.k, better);
    e[p.k - 1] = next;
    std::push_heap(e, e + p.k, better);
  }
  std::sort_heap(e, e + p.k, better);
}

}  // namespace

Status topk(const void* params, void* const* args, int part, int parts) {
  const auto& p = *static_cast<const TopK*>(params);
  const int64_t room = topk_room(p);
  auto* e = static_cast<TopKEntry*>(args[3]) + part * room;
  const Range lines = part_of(p.outer * p.inner, part, parts);
  return with_ordered(p.dtype, args[0], [&]<class T>(const T* x) {
    auto* values = static_cast<T*>(args[1]);
    auto* indices = static_cast<int64_t*>(args[2]);
    for (int64_t line = lines.begin; line < lines.end; ++line) {
      const int64_t outer = line / p.inner, inner = line % p.inner;
      const T* from = x + outer * p.n * p.inner + inner;
      room == p.n ? select_in_copy(p, from, e) : select_by_heap(p, from, e);
      for (int64_t j = 0; j < p.k; ++j) {
        const int64_t at = (outer * p.k + j) * p.inner + inner;
        values[at] = from[e[j].index * p.inner];
        indices[at] = e[j].index;
      }
    }
    return Status::ok;
  });
}

}  // namespace fi
