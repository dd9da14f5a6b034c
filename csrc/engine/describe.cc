// SPDX-License-Identifier: Apache-2.0
#include "csrc/engine/describe.h"

#include <algorithm>
#include <string_view>

namespace fi {
namespace {

using Operands = std::span<const Operand>;

Operands operands_of(const Segment& segment, const Step& step) {
  return {segment.args.data() + step.args, step.n_args};
}

bool within(const Operand& a, int32_t base, int64_t begin, size_t bytes) {
  return a.base == base && a.offset >= begin && a.offset < begin + static_cast<int64_t>(std::max<size_t>(bytes, 1));
}

bool within(const Operand& a, const void* data, size_t bytes) {
  return within(a, 0, static_cast<int64_t>(reinterpret_cast<intptr_t>(data)), bytes);
}

// Bytes that the operands reach of a value: its own, or of the packed form that they point into. 0: none of them.
size_t reached(const Program& program, const ValueState& state, int value, Operands args) {
  const size_t bytes = state.desc.bytes();
  for (const Operand& a : args)
    if (state.where.base >= 0 && within(a, state.where.base, state.where.offset, bytes)) return bytes;
  if (program.constant_of[value] < 0) return 0;
  const Constant& c = program.constants[program.constant_of[value]];
  for (const auto& [layout, data] : c.packed)
    for (const Operand& a : args)
      if (within(a, data.get(), c.packed_bytes.at(layout))) return c.packed_bytes.at(layout);
  return 0;
}

// Steps of the node that write the value: each is taken to write its share (a concatenation's copies).
size_t writers(const Program& program, const Segment& segment, size_t first, size_t last, int value) {
  size_t n = 0;
  for (size_t i = first; i < last; ++i)
    n += reached(program, segment.state[value], value, operands_of(segment, segment.steps[i])) > 0;
  return n;
}

// Operators that read no more of their first input than they give out: a table is not streamed to look up a row.
bool selects(const Node& node) {
  static constexpr std::string_view all[] = {"Gather", "GatherElements", "GatherND", "Slice",
                                             "EmbedLayerNormalization"};
  return std::find(std::begin(all), std::end(all), node.op) != std::end(all);
}

size_t output_bytes(const Node& node, const std::vector<ValueState>& state) {
  size_t sum = 0;
  for (int v : node.outputs)
    if (v >= 0) sum += state[v].desc.bytes();
  return sum;
}

// Opaque values (sequences, strings) have no size.
bool sized(const ValueState& s) { return s.desc.dtype != DType::none && size_of(s.desc.dtype) > 0; }

// The node's inputs that no step has an operand for (weights that an Op holds in a form of its own) count with the
// step that does most of the work.
size_t leading_step(const Segment& segment, size_t first, size_t last) {
  size_t best = first;
  for (size_t i = first; i < last; ++i)
    if (segment.steps[i].flops >= segment.steps[best].flops) best = i;
  return best;
}

// A copy that finish() appended: it belongs to an output of the model, not to a node.
const OutputSource* final_copy(const Segment& segment, const Node& node, const Step& step) {
  if (std::string_view(step.kernel) != "copy" || step.n_args != 2) return nullptr;
  const int base = operands_of(segment, step)[1].base;
  for (int v : node.outputs)
    if (v >= 0 && segment.state[v].where.base == base) return nullptr;
  for (const OutputSource& r : segment.results)
    if (r.base == base) return &r;
  return nullptr;
}

}  // namespace

StepFacts facts_of(const Program& program, const Segment& segment, size_t index) {
  const Step& step = segment.steps[index];
  StepFacts facts;
  if (step.node < 0) return facts;
  const Node& node = program.nodes[step.node];
  const auto& state = segment.state;
  if (const OutputSource* copied = final_copy(segment, node, step)) return {copied->desc, 0, 2 * copied->desc.bytes()};
  size_t first = index, last = index + 1;
  while (first > 0 && segment.steps[first - 1].node == step.node) --first;
  while (last < segment.steps.size() && segment.steps[last].node == step.node) ++last;
  const Operands args = operands_of(segment, step);
  const Operands all{segment.args.data() + segment.steps[first].args,
                     segment.steps[last - 1].args + segment.steps[last - 1].n_args - segment.steps[first].args};
  const bool leading = index == leading_step(segment, first, last);

  bool named = false;
  for (int v : node.outputs) {
    if (v < 0 || !sized(state[v])) continue;
    const bool writes = reached(program, state[v], v, args) > 0;
    if (writes) facts.bytes += state[v].desc.bytes() / writers(program, segment, first, last, v);
    if (facts.out.dtype == DType::none || (writes && !named)) facts.out = state[v].desc;
    named = named || writes;
  }
  std::vector<int> seen;  // x + x reads x once
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    const int v = node.inputs[i];
    if (v < 0 || !sized(state[v]) || std::find(seen.begin(), seen.end(), v) != seen.end()) continue;
    seen.push_back(v);
    size_t bytes = reached(program, state[v], v, args);
    if (!bytes && leading && !reached(program, state[v], v, all)) bytes = state[v].desc.bytes();
    if (i == 0 && selects(node)) bytes = std::min(bytes, output_bytes(node, state));
    facts.bytes += bytes;
    if (program.constant_of[v] >= 0) facts.weight_bytes += bytes;
  }
  return facts;
}

StepFacts facts_of_pivot(const Program& program, const Segment& segment, const Segment* next) {
  const Node& node = program.nodes[segment.pivot];
  StepFacts facts;
  for (int v : node.inputs)
    if (v >= 0 && sized(segment.state[v])) facts.bytes += segment.state[v].desc.bytes();
  if (!next) return facts;
  for (int v : node.outputs) {
    if (v < 0 || !sized(next->state[v])) continue;
    facts.bytes += next->state[v].desc.bytes();
    if (facts.out.dtype == DType::none) facts.out = next->state[v].desc;
  }
  return facts;
}

}  // namespace fi
