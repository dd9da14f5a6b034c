// SPDX-License-Identifier: Apache-2.0
// Offsets in an arena, given out while planning: best fit over the free ranges, neighbours merged on release.
#pragma once
#include <cstddef>
#include <map>

#include "csrc/base/tensor.h"

namespace fi {

class ArenaLayout {
 public:
  static constexpr size_t kGrain = 128;  // two lines: adjacent-line prefetch must not make buffers share

  static size_t rounded(size_t bytes) { return bytes ? (bytes + kGrain - 1) / kGrain * kGrain : kGrain; }

  size_t take(size_t bytes) {
    bytes = rounded(bytes);
    auto best = free_.end();
    for (auto it = free_.begin(); it != free_.end(); ++it)
      if (it->second >= bytes && (best == free_.end() || it->second < best->second)) best = it;
    if (best == free_.end()) return grow(bytes);
    const size_t at = best->first, left = best->second - bytes;
    free_.erase(best);
    if (left) free_[at + bytes] = left;
    return at;
  }

  void release(size_t at, size_t bytes) {
    bytes = rounded(bytes);
    auto next = free_.lower_bound(at);
    if (next != free_.end() && at + bytes == next->first) {
      bytes += next->second;
      next = free_.erase(next);
    }
    if (next != free_.begin()) {
      auto before = std::prev(next);
      if (before->first + before->second == at) {
        before->second += bytes;
        return;
      }
    }
    free_[at] = bytes;
  }

  size_t bytes() const { return end_; }

 private:
  // Nothing fits: extend the free range that touches the end, if any.
  size_t grow(size_t bytes) {
    size_t at = end_;
    if (!free_.empty()) {
      auto last = std::prev(free_.end());
      if (last->first + last->second == end_) {
        at = last->first;
        free_.erase(last);
      }
    }
    end_ = at + bytes;
    return at;
  }

  std::map<size_t, size_t> free_;  // offset → length
  size_t end_ = 0;
};

}  // namespace fi
