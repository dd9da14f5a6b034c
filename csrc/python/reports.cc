// SPDX-License-Identifier: Apache-2.0
#include "csrc/python/reports.h"

#include <pybind11/stl.h>

#include "csrc/engine/check.h"
#include "csrc/engine/describe.h"
#include "csrc/python/arrays.h"

namespace py = pybind11;

namespace fi {
namespace {

// Of step `index` of a visited segment, -1: of the operator that ends it.
void add_facts(py::dict& d, const Program& p, const Profile& profile, size_t visit, int index) {
  const Segment& s = *profile.visits[visit].segment;
  StepFacts f;
  if (index >= 0) {
    f = facts_of(p, s, static_cast<size_t>(index));
  } else {
    const Segment* next = nullptr;
    for (size_t i = visit + 1; i < profile.visits.size() && !next; ++i)
      if (profile.visits[i].segment->parent.get() == &s) next = profile.visits[i].segment.get();
    f = facts_of_pivot(p, s, next);
  }
  const bool known = f.out.dtype != DType::none;
  d["shape"] = known ? py::cast(std::vector<int64_t>(f.out.shape.begin(), f.out.shape.end())) : py::none();
  d["dtype"] = known ? py::cast(name_of(f.out.dtype)) : py::none();
  d["bytes"] = f.bytes;
  d["weight_bytes"] = f.weight_bytes;
}

py::dict step_dict(const Program& p, int node, const char* kernel, int depth, const Segment& s) {
  py::dict d;
  py::list refusals;
  for (const auto& [n, reason] : s.refusals)
    if (n == node) refusals.append(reason);
  d["node"] = node;
  d["label"] = node >= 0 ? p.label(node) : std::string("output");
  d["op"] = node >= 0 ? p.nodes[node].op : std::string();
  d["kernel"] = kernel;
  d["parts"] = 1;
  d["flops"] = 0.0;
  d["depth"] = depth;
  d["refusals"] = refusals;
  std::string tuned;
  for (const Choice& c : s.choices)
    if (c.node == node && c.tuned)
      tuned += (tuned.empty() ? "" : "; ") + c.problem.substr(0, c.problem.find(' ')) + ": " + c.candidates[c.chosen];
  if (!tuned.empty()) d["tuned"] = tuned;
  return d;
}

void list_choices(const Segment& s, py::list& out) {
  for (const Choice& c : s.choices) {
    py::dict d;
    d["node"] = c.node;
    d["problem"] = c.problem;
    d["candidates"] = c.candidates;
    d["chosen"] = c.chosen;
    out.append(d);
  }
}

void explain_segment(const Program& p, const Profile& profile, size_t visit, py::list& out) {
  const Segment& s = *profile.visits[visit].segment;
  const int depth = profile.visits[visit].depth;
  for (size_t i = 0; i < s.steps.size(); ++i) {
    const Step& step = s.steps[i];
    py::dict d = step_dict(p, step.node, step.kernel, depth, s);
    d["parts"] = step.parts;
    d["flops"] = step.flops;
    add_facts(d, p, profile, visit, static_cast<int>(i));
    out.append(d);
  }
  if (s.end == SegmentEnd::eager) {
    py::dict d = step_dict(p, s.pivot, s.by_fallback ? "reference" : "eager", depth, s);
    add_facts(d, p, profile, visit, -1);
    out.append(d);
  }
}

}  // namespace

py::list profile_list(const Profile& profile) {
  py::list out;
  for (const StepTime& s : profile.steps) {
    const Program& p = *profile.visits[s.visit].program;
    py::dict d;
    d["node"] = s.node;
    d["label"] = s.label;
    d["op"] = s.node >= 0 ? p.nodes[s.node].op : std::string();
    d["kernel"] = s.kernel;
    d["start_ns"] = s.start_ns;
    d["ns"] = s.ns;
    d["flops"] = s.flops;
    d["depth"] = s.depth;
    add_facts(d, p, profile, static_cast<size_t>(s.visit), s.step);
    out.append(d);
  }
  return out;
}

py::dict findings(const Program& p, const py::list& expected) {
  std::vector<ExpectedValue> values;
  for (const py::handle& entry : expected) {
    const auto [value, code, dims, exact] = py::cast<std::tuple<int, int, std::vector<int64_t>, bool>>(entry);
    if (dims.size() > kMaxRank) continue;
    values.push_back({value, {static_cast<DType>(code), Shape(dims.begin(), dims.end())}, exact});
  }
  const Findings found = check_program(p, values);
  py::list by_reference;
  for (const auto& r : found.by_reference) by_reference.append(py::make_tuple(r.node, r.reason, r.exact));
  py::dict d;
  d["by_reference"] = by_reference;
  d["fault"] = found.fault;
  return d;
}

py::dict shapes(Executor& e, const std::vector<std::pair<int, std::vector<int64_t>>>& inputs) {
  std::vector<Desc> descs;
  for (const auto& [code, dims] : inputs) {
    check(dims.size() <= kMaxRank, "an input of rank ", dims.size(), "; at most ", kMaxRank, " is supported");
    descs.push_back({static_cast<DType>(code), Shape(dims.begin(), dims.end())});
  }
  std::shared_ptr<Segment> plan;
  {
    py::gil_scoped_release unlocked;
    plan = e.plan(descs);
  }
  const Program& p = e.program();
  py::dict values;
  for (const Node& n : p.nodes)
    for (const int v : n.outputs) {
      if (v < 0) continue;
      const ValueState& state = plan->state[v];
      if (state.desc.dtype == DType::none) continue;
      py::object known = py::none();
      if (state.known) {
        Tensor copy = allocate_tensor(state.desc.dtype, state.desc.shape);
        if (const size_t bytes = state.desc.bytes()) std::memcpy(copy.data, state.known, bytes);
        known = to_object(copy);
      }
      const Shape& s = state.desc.shape;
      const py::object extents = py::cast(std::vector<int64_t>(s.begin(), s.end()));
      values[py::int_(v)] = py::make_tuple(static_cast<int>(state.desc.dtype), py::tuple(extents), known);
    }
  py::dict d;
  d["values"] = values;
  d["pivot"] = plan->end == SegmentEnd::finished ? -1 : plan->pivot;
  d["end"] = plan->end == SegmentEnd::finished ? "finished"
             : plan->end == SegmentEnd::need_value
                 ? "what follows depends on the values of a tensor"
                 : "an operator runs by itself: its result's shape is not known before";
  return d;
}

py::dict explain(Executor& e, const std::vector<Tensor>& inputs, bool run_it) {
  std::vector<Desc> descs;
  for (const Tensor& t : inputs) descs.push_back(t.desc);
  const auto first = e.plan(descs);
  Profile profile;
  if (run_it && first->end != SegmentEnd::finished) {
    py::gil_scoped_release unlocked;
    e.run(inputs, &profile);
  } else {
    profile.visits.push_back({nullptr, first, 0});
  }
  py::list steps, choices;
  size_t arena = 0;
  bool finished = false;
  for (size_t i = 0; i < profile.visits.size(); ++i) {
    const Profile::Visit& v = profile.visits[i];
    explain_segment(v.program ? *v.program : e.program(), profile, i, steps);
    if (v.depth == 0) list_choices(*v.segment, choices);
    arena += v.segment->arena_bytes;
    finished = finished || (v.depth == 0 && v.segment->end == SegmentEnd::finished);
  }
  py::dict d;
  d["steps"] = steps;
  d["choices"] = choices;
  d["arena_bytes"] = arena;
  d["finished"] = finished;
  return d;
}

}  // namespace fi
