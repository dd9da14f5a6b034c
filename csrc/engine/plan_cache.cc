// SPDX-License-Identifier: Apache-2.0
#include "csrc/engine/plan.h"

namespace fi {

size_t PlanCache::Hash::operator()(const PlanKey& key) const {
  uint64_t h = 0xcbf29ce484222325u;  // FNV-1a over the words
  for (int64_t v : key) h = (h ^ static_cast<uint64_t>(v)) * 0x100000001b3u;
  return h ^ (h >> 29);
}

std::shared_ptr<Segment> PlanCache::find(const PlanKey& key) {
  std::lock_guard lock(guard_);
  if (!order_.empty() && order_.front().first == key) return order_.front().second;
  const auto it = index_.find(key);
  if (it == index_.end()) return nullptr;
  order_.splice(order_.begin(), order_, it->second);
  return order_.front().second;
}

void PlanCache::insert(const PlanKey& key, std::shared_ptr<Segment> segment) {
  std::lock_guard lock(guard_);
  if (index_.count(key)) return;  // another thread planned the same shapes first
  order_.emplace_front(key, std::move(segment));
  index_[key] = order_.begin();
  if (order_.size() > capacity_) {
    index_.erase(order_.back().first);
    order_.pop_back();
  }
}

void PlanCache::clear() {
  std::lock_guard lock(guard_);
  index_.clear();
  order_.clear();
}

size_t PlanCache::size() {
  std::lock_guard lock(guard_);
  return order_.size();
}

}  // namespace fi
