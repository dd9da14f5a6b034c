// SPDX-License-Identifier: Apache-2.0
// Where a plan begins: at the inputs, or behind a segment that ended early.
#include "csrc/engine/planner.h"

namespace fi {
namespace {

std::shared_ptr<Segment> plan_whole(const Program& program, const std::vector<Desc>& inputs, int threads,
                                    std::vector<Place> places) {
  auto segment = std::make_shared<Segment>();
  segment->n_bases = 1 + static_cast<int>(inputs.size());
  Planner planner(program, *segment, threads, std::move(places));
  planner.values.resize(program.n_values);
  for (size_t i = 0; i < inputs.size(); ++i)
    planner.values[program.inputs[i].value] = {inputs[i], {static_cast<int>(i) + 1, 0}, nullptr, -1};
  for (const Constant& c : program.constants) {
    ValueState& v = planner.values[c.value];
    v.desc = c.desc;
    if (!c.dense) continue;  // packed only: described, but not addressable
    v.known = c.dense.data;
    v.where = {0, static_cast<int64_t>(reinterpret_cast<intptr_t>(c.dense.data))};
  }
  planner.sweep(0);
  return segment;
}

}  // namespace

// Where a concatenation's inputs go depends on the shapes of those that come later, so such programs are planned twice.
// What follows a segment reads values where they are, so only programs of one segment may have rows that lie apart.
std::shared_ptr<Segment> plan_first(const Program& program, const std::vector<Desc>& inputs, int threads) {
  auto segment = plan_whole(program, inputs, threads, {});
  if (segment->end != SegmentEnd::finished) return segment;
  std::vector<Place> places = find_places(program, segment->state);
  return places.empty() ? segment : plan_whole(program, inputs, threads, std::move(places));
}

std::shared_ptr<Segment> plan_next(const Program& program, std::shared_ptr<Segment> parent,
                                   const std::vector<Desc>& results, const void* data, int threads) {
  auto segment = std::make_shared<Segment>();
  const Node& pivot = program.nodes[parent->pivot];
  const bool eager = parent->end == SegmentEnd::eager;
  segment->n_bases = parent->n_bases + static_cast<int>(results.size());
  segment->parent = parent;
  segment->owned = parent->owned;
  segment->destinies = parent->destinies;
  for (size_t i = 0; i < results.size(); ++i) segment->owned.push_back(parent->n_bases + static_cast<int>(i));
  Planner planner(program, *segment, threads);
  planner.values = parent->state;
  for (ValueState& v : planner.values) v.storage = -1;  // the parent's arena is kept whole
  if (eager) {
    for (size_t i = 0; i < results.size(); ++i)
      if (pivot.outputs[i] >= 0)
        planner.values[pivot.outputs[i]] = {results[i], {parent->n_bases + static_cast<int>(i), 0}, nullptr, -1};
  } else {
    ValueState& v = planner.values[parent->needed];
    const size_t bytes = v.desc.bytes();
    auto memory = allocate_bytes(bytes);
    if (bytes) std::memcpy(memory.get(), data, bytes);
    v.known = memory.get();
    v.where = {0, static_cast<int64_t>(reinterpret_cast<intptr_t>(v.known))};  // nodes that fold read it while planning
    segment->memory.push_back(std::move(memory));
  }
  planner.sweep(parent->pivot + (eager ? 1 : 0));
  return segment;
}

}  // namespace fi
