// SPDX-License-Identifier: Apache-2.0
// If, Loop and Scan over EagerContext::run_graph. A node's inputs are the operator's own, then, graph attribute by
// graph attribute in the order of their names, what each body captures; a body's inputs are its formal ones, then its
// captures.
#include <algorithm>

#include "csrc/ops/stack.h"

namespace fi {
namespace {

int own_inputs(const Node& node) {
  const int64_t n = node.attributes.i("own_inputs");
  check_model(n >= 0 && n <= static_cast<int64_t>(node.inputs.size()), "own_inputs is ", n, " of ", node.inputs.size());
  return static_cast<int>(n);
}

int captures(const Node& node, const std::string& graph) {
  return static_cast<int>(std::clamp<int64_t>(node.attributes.i(graph + "_captures"), 0, 1 << 20));
}

void append_inputs(EagerContext& ctx, int first, int n, std::vector<Tensor>& list) {
  check_model(first + n <= ctx.n_inputs(), "captured values are missing");
  for (int i = first; i < first + n; ++i) list.push_back(ctx.input(i));
}

template <class T>
T read_one(const Tensor& t, DType dtype, const char* name) {
  check(t.desc.dtype == dtype && t.desc.elements() == 1, name, " is ", t.desc, ", needed: one ", name_of(dtype));
  return *t.as<T>();
}

template <class T>
Tensor scalar(DType dtype, T value) {
  Tensor t = allocate_tensor(dtype, Shape{});
  std::memcpy(t.data, &value, sizeof value);
  return t;
}

// A value that leaves as it came: its memory may belong to the arena of the run, so it is copied.
Tensor kept(const Tensor& t) {
  if (!t || t.desc.dtype == DType::opaque) return t;
  Tensor copy = allocate_tensor(t.desc.dtype, t.desc.shape);
  if (t.desc.bytes()) std::memcpy(copy.data, t.data, t.desc.bytes());
  return copy;
}

// ------------------------------------------------------------------------------------------------------------- If

struct If final : Op {
  int else_graph, then_graph, own, else_captures, then_captures;
  explicit If(const Node& node)
      : else_graph(node.attributes.graph("else_branch")),
        then_graph(node.attributes.graph("then_branch")),
        own(own_inputs(node)),
        else_captures(captures(node, "else_branch")),
        then_captures(captures(node, "then_branch")) {
    check_model(own == 1, "has ", own, " inputs, needed: 1");
  }
  void plan(PlanContext& ctx) const override {
    check(ctx.dtype(0) == DType::boolean, "condition is ", ctx.input(0), ", needed: one bool");
    ctx.eager();
  }
  void run_eager(EagerContext& ctx) const override {
    const bool taken = read_one<bool>(ctx.input(0), DType::boolean, "condition");
    std::vector<Tensor> inputs;
    if (taken)
      append_inputs(ctx, own + else_captures, then_captures, inputs);
    else
      append_inputs(ctx, own, else_captures, inputs);
    std::vector<Tensor> results = ctx.run_graph(taken ? then_graph : else_graph, std::move(inputs));
    check_model(static_cast<int>(results.size()) >= ctx.n_outputs(), "branch gives ", results.size(),
                " outputs, needed: ", ctx.n_outputs());
    for (int i = 0; i < ctx.n_outputs(); ++i) ctx.set(i, std::move(results[i]));
  }
};

// ----------------------------------------------------------------------------------------------------------- Loop

struct Loop final : Op {
  int body, own, n_captures;
  explicit Loop(const Node& node)
      : body(node.attributes.graph("body")), own(own_inputs(node)), n_captures(captures(node, "body")) {
    check_model(own >= 2, "has ", own, " inputs, needed: trip count and condition, present or left out");
  }
  void plan(PlanContext& ctx) const override { ctx.eager(); }

  void run_eager(EagerContext& ctx) const override {
    const int n_carried = own - 2, n_scans = std::max(ctx.n_outputs() - n_carried, 0);
    const bool counted = static_cast<bool>(ctx.input(0));
    const int64_t trips = counted ? read_one<int64_t>(ctx.input(0), DType::s64, "trip count") : 0;
    bool go = !ctx.input(1) || read_one<bool>(ctx.input(1), DType::boolean, "condition");
    std::vector<Tensor> carried, captured;
    append_inputs(ctx, 2, n_carried, carried);
    append_inputs(ctx, own, n_captures, captured);
    std::vector<std::vector<Tensor>> scans(n_scans);
    int64_t trip = 0;
    for (; go && (!counted || trip < trips); ++trip) {
      std::vector<Tensor> inputs = {scalar(DType::s64, trip), scalar(DType::boolean, true)};
      std::move(carried.begin(), carried.end(), std::back_inserter(inputs));
      inputs.insert(inputs.end(), captured.begin(), captured.end());
      std::vector<Tensor> results = ctx.run_graph(body, std::move(inputs));
      check_model(static_cast<int>(results.size()) >= 1 + n_carried + n_scans, "body gives ", results.size(),
                  " outputs, needed: ", 1 + n_carried + n_scans);
      go = read_one<bool>(results[0], DType::boolean, "the body's condition");
      carried.assign(std::make_move_iterator(results.begin() + 1),
                     std::make_move_iterator(results.begin() + 1 + n_carried));
      for (int s = 0; s < n_scans; ++s) scans[s].push_back(std::move(results[1 + n_carried + s]));
    }
    for (int i = 0; i < std::min(n_carried, ctx.n_outputs()); ++i)
      ctx.set(i, trip == 0 ? kept(carried[i]) : std::move(carried[i]));
    for (int s = 0; s < n_scans; ++s)
      ctx.set(n_carried + s, stack(scans[s], 0, false, ctx.declared_output(body, 1 + n_carried + s)));
  }
};

// ----------------------------------------------------------------------------------------------------------- Scan

struct Scan final : Op {
  int body, own, n_captures, n_states, n_slices;
  std::vector<int64_t> input_axes, input_directions, output_axes, output_directions;
  explicit Scan(const Node& node)
      : body(node.attributes.graph("body")),
        own(own_inputs(node)),
        n_captures(captures(node, "body")),
        input_axes(node.attributes.ints("scan_input_axes")),
        input_directions(node.attributes.ints("scan_input_directions")),
        output_axes(node.attributes.ints("scan_output_axes")),
        output_directions(node.attributes.ints("scan_output_directions")) {
    const int64_t n = node.attributes.i("num_scan_inputs");
    check_model(n >= 1 && n <= own, "num_scan_inputs is ", n, " of ", own, " inputs");
    n_slices = static_cast<int>(n);
    n_states = own - n_slices;
  }
  void plan(PlanContext& ctx) const override { ctx.eager(); }

  void run_eager(EagerContext& ctx) const override {
    const int n_scans = std::max(ctx.n_outputs() - n_states, 0);
    std::vector<Tensor> states, captured;
    append_inputs(ctx, 0, n_states, states);
    append_inputs(ctx, own, n_captures, captured);
    const int64_t length = common_length(ctx);
    std::vector<std::vector<Tensor>> scans(n_scans);
    for (int64_t t = 0; t < length; ++t) {
      std::vector<Tensor> inputs = std::move(states);
      for (int s = 0; s < n_slices; ++s) {
        const Tensor& x = ctx.input(n_states + s);
        inputs.push_back(slice_at(x, input_axis(x, s), entry(input_directions, s) ? length - 1 - t : t));
      }
      inputs.insert(inputs.end(), captured.begin(), captured.end());
      std::vector<Tensor> results = ctx.run_graph(body, std::move(inputs));
      check_model(static_cast<int>(results.size()) >= n_states + n_scans, "body gives ", results.size(),
                  " outputs, needed: ", n_states + n_scans);
      states.assign(std::make_move_iterator(results.begin()), std::make_move_iterator(results.begin() + n_states));
      for (int s = 0; s < n_scans; ++s) scans[s].push_back(std::move(results[n_states + s]));
    }
    for (int i = 0; i < std::min(n_states, ctx.n_outputs()); ++i)
      ctx.set(i, length == 0 ? kept(states[i]) : std::move(states[i]));
    for (int s = 0; s < n_scans; ++s)
      ctx.set(n_states + s, stack(scans[s], entry(output_axes, s), entry(output_directions, s) != 0,
                                  ctx.declared_output(body, n_states + s)));
  }

 private:
  static int64_t entry(const std::vector<int64_t>& list, int i) {
    return i < static_cast<int>(list.size()) ? list[i] : 0;
  }
  int input_axis(const Tensor& x, int s) const { return normalize_axis(entry(input_axes, s), x.desc.shape.rank()); }
  int64_t common_length(EagerContext& ctx) const {
    int64_t length = -1;
    for (int s = 0; s < n_slices; ++s) {
      const Tensor& x = ctx.input(n_states + s);
      check(static_cast<bool>(x) && x.desc.dtype != DType::opaque, "scan input ", s, " is not a tensor");
      const int64_t extent = x.desc.shape[input_axis(x, s)];
      check(length < 0 || extent == length, "scan input ", s, " has ", extent, " steps, the one before ", length);
      length = extent;
    }
    return length;
  }
};

}  // namespace

std::unique_ptr<Op> make_if(BuildContext& c) { return std::make_unique<If>(c.node); }
std::unique_ptr<Op> make_loop(BuildContext& c) { return std::make_unique<Loop>(c.node); }
std::unique_ptr<Op> make_scan(BuildContext& c) { return std::make_unique<Scan>(c.node); }

}  // namespace fi
