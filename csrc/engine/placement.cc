// SPDX-License-Identifier: Apache-2.0
#include "csrc/engine/placement.h"

namespace fi {
namespace {

bool is_plain(const Node& n, const char* op) { return n.domain.empty() && n.op == op; }

bool along_last_axis(const Node& n, int64_t fallback, int rank) {
  const int64_t axis = n.attributes.i("axis", fallback);
  return rank > 0 && (axis == -1 || axis == rank - 1);
}

class Finder {
 public:
  Finder(const Program& program, const std::vector<ValueState>& values)
      : program_(program), values_(values), places_(program.n_values), is_parent_(program.n_values) {}

  bool any() const { return any_; }
  std::vector<Place> take() { return std::move(places_); }

  void concat(const Node& n) {
    const int parent = n.outputs[0];
    if (parent < 0 || n.inputs.size() < 2 || !computed(parent)) return;
    const Desc& whole = values_[parent].desc;
    const int rank = whole.shape.rank();
    if (!along_last_axis(n, 0, rank) || whole.shape.elements(0, rank - 1) < 2) return;
    const int64_t unit = static_cast<int64_t>(size_of(whole.dtype));
    int64_t at = 0;
    for (int v : n.inputs) {
      const int64_t extent = values_[v].desc.shape.back();
      if (computed(v) && places_[v].parent < 0 && extent > 0 && !is_parent_[v]) {
        set(v, {parent, at * unit, whole.shape.back(), whole.bytes()});
        is_parent_[parent] = true;
      }
      at += extent;
    }
  }

  // The pieces of a Split are views of its input: they lie in place if the input does.
  void split(const Node& n) {
    const int v = n.inputs[0], rank = values_[v].desc.shape.rank();
    if (!along_last_axis(n, 0, rank) || !computed(v) || places_[v].parent >= 0 || is_parent_[v]) return;
    if (n.outputs[0] < 0 || places_[n.outputs[0]].parent < 0) return;
    const Place first = places_[n.outputs[0]];
    int64_t at = first.offset;
    for (int o : n.outputs) {
      if (o < 0 || places_[o].parent != first.parent || places_[o].offset != at) return;
      at += values_[o].desc.shape.back() * static_cast<int64_t>(size_of(values_[o].desc.dtype));
    }
    set(v, first);
  }

 private:
  // Computed by a step into storage of the planner's choice.
  bool computed(int v) const {
    return !values_[v].known && values_[v].storage >= 0 && program_.destiny[v] < 0 &&
           program_.last_use[v] < static_cast<int>(program_.nodes.size());
  }
  void set(int v, const Place& p) {
    places_[v] = p;
    any_ = true;
  }

  const Program& program_;
  const std::vector<ValueState>& values_;
  std::vector<Place> places_;
  std::vector<bool> is_parent_;
  bool any_ = false;
};

}  // namespace

std::vector<Place> find_places(const Program& program, const std::vector<ValueState>& values) {
  Finder finder(program, values);
  for (const Node& n : program.nodes)
    if (is_plain(n, "Concat")) finder.concat(n);
  if (!finder.any()) return {};
  for (size_t i = program.nodes.size(); i-- > 0;)
    if (is_plain(program.nodes[i], "Split")) finder.split(program.nodes[i]);
  return finder.take();
}

}  // namespace fi
