// SPDX-License-Identifier: Apache-2.0
// A Program specialised to concrete shapes: a chain of segments, each a flat list of steps over one arena.
// A segment ends where a value must be known before planning can go on, or where an operator runs eagerly.
#pragma once
#include <atomic>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "csrc/engine/program.h"

namespace fi {

struct Step {
  StepFn fn;
  uint32_t params;  // offset into Segment::params
  uint32_t args;    // index into Segment::args
  uint16_t n_args;
  uint16_t parts;
  int node;
  const char* kernel;
  double flops;
};

// What is known of a value at some point of planning.
struct ValueState {
  Desc desc;
  Operand where;                // base -1: not computed yet
  const void* known = nullptr;  // its bytes, if they are known while planning
  int storage = -1;             // arena storage it lives in
  int64_t row = 0;              // elements from one row (along the last axis) to the next; 0: dense
};

enum class SegmentEnd { finished, need_value, eager };

// LRU of segments by key. A plan's key is made of dtypes and shapes, and of data where a value was needed.
using PlanKey = std::vector<int64_t>;
class PlanCache {
 public:
  explicit PlanCache(size_t capacity) : capacity_(capacity) {}
  std::shared_ptr<struct Segment> find(const PlanKey&);
  void insert(const PlanKey&, std::shared_ptr<struct Segment>);
  void clear();
  size_t size();
  size_t capacity() const { return capacity_; }

 private:
  struct Hash {
    size_t operator()(const PlanKey&) const;
  };
  using Entry = std::pair<PlanKey, std::shared_ptr<struct Segment>>;
  size_t capacity_;
  std::mutex guard_;
  std::list<Entry> order_;  // most recently used first
  std::unordered_map<PlanKey, std::list<Entry>::iterator, Hash> index_;
};

struct OutputBuffer {
  int base;
  Desc desc;
};
// How a model output is handed over at the end: from a buffer that a step filled, or as an eager result.
struct OutputSource {
  int base = -1;
  Desc desc;
};

struct Segment {
  std::vector<Step> steps;
  std::vector<std::byte> params;
  std::vector<Operand> args;
  size_t arena_bytes = 0;
  int arena_base = -1;
  int n_bases = 0;                    // bases in use once this segment has been planned
  std::vector<OutputBuffer> buffers;  // output buffers to allocate on entry
  std::vector<OutputSource> results;  // filled in the last segment
  SegmentEnd end = SegmentEnd::finished;
  int pivot = -1;                             // node: the eager one, or the one that needs a value
  bool by_fallback = false;                   // the pivot runs through the reference fallback
  int needed = -1;                            // the value it needs
  std::vector<ValueState> state;              // at the end: for planning what follows, for explain()
  std::vector<std::shared_ptr<void>> memory;  // what known pointers and params point into
  std::vector<std::pair<int, std::string>> refusals;
  std::vector<Choice> choices;      // where tuning is on
  std::vector<int> owned;           // bases whose tensor can be handed to the caller (buffers, eager results)
  std::vector<int> destinies;       // outputs that already have a buffer
  std::shared_ptr<Segment> parent;  // keeps its memory alive
  PlanCache next{64};
  // Of Executor::run_whole, the last time; the first run counts as a long one.
  mutable std::atomic<int64_t> last_ns{int64_t{1} << 62};
};

// Bases: 0 = absolute addresses, 1..inputs.size() = model inputs, then as segments need them.
std::shared_ptr<Segment> plan_first(const Program&, const std::vector<Desc>& inputs, int threads);
// results: descriptions of the pivot's outputs (eager), given bases starting at parent->n_bases;
// data: bytes of the needed value (need_value), copied.
std::shared_ptr<Segment> plan_next(const Program&, std::shared_ptr<Segment> parent, const std::vector<Desc>& results,
                                   const void* data, int threads);

}  // namespace fi
