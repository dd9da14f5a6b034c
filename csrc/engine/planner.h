// SPDX-License-Identifier: Apache-2.0
// One sweep over a program's nodes for known input shapes. What operators ask and declare while it goes on is in
// plan_context.cc, the sweep itself in planner.cc, where sweeps begin in plans.cc.
#pragma once
#include <map>

#include "csrc/engine/choices.h"
#include "csrc/engine/memory.h"
#include "csrc/engine/placement.h"

namespace fi {

// Thrown by what an operator asks for while it is run on the spot: it becomes a step after all.
struct FoldTooLarge {};

class Planner : public PlanContext {
 public:
  Planner(const Program& program, Segment& segment, int threads, std::vector<Place> places = {})
      : program_(program),
        segment_(segment),
        threads_(threads),
        strict_(program.strict),
        choices_(program.tuning(), segment.choices),
        places_(std::move(places)) {
    segment_.arena_base = segment_.n_bases++;
  }

  std::vector<ValueState> values;

  // Plans nodes from `first` until the program or the segment ends.
  void sweep(int first);

  // ------------------------------------------------------------------------------------------------ PlanContext
  int n_inputs() const override { return static_cast<int>(node().inputs.size()); }
  bool has_input(int i) const override { return i < n_inputs() && node().inputs[i] >= 0; }
  const Desc& input(int i) const override;
  Operand in(int i) override;
  Operand in_rows(int i, int64_t& row) override;
  const void* known(int i) const override { return has_input(i) ? state(i).known : nullptr; }
  const void* require(int i) override;

  int n_outputs() const override { return static_cast<int>(node().outputs.size()); }
  bool wants(int out) const override { return out < n_outputs() && node().outputs[out] >= 0; }

  Operand output(int out, DType dtype, const Shape& shape) override;
  Operand output_rows(int out, DType dtype, const Shape& shape, int64_t& row) override;
  bool view(int out, int i, const Shape& shape, int64_t at) override;
  Operand output_over(int out, DType dtype, const Shape& shape, int i) override;
  void alias(int out, int i, DType dtype, const Shape& shape) override;
  void known_output(int out, DType dtype, const Shape& shape, const void* data) override;
  Operand scratch(size_t bytes) override;
  Operand address(const void* data) override { return absolute(data); }
  int threads() const override { return folding_ ? 1 : threads_; }
  Isa isa() const override { return program_.isa; }
  bool shapes_only() const override { return program_.shapes_only; }
  void refuse(const std::string& reason) override;
  bool tuning() const override { return choices_.on() && !folding_; }
  int choose(const std::string& problem, std::span<const char* const> candidates, int fallback) override;

 protected:
  struct Storage {
    size_t offset, bytes;
    int last_use;
    bool live;
  };

  const Node& node() const { return program_.nodes[current_]; }
  const ValueState& state(int i) const { return values[node().inputs[i]]; }
  static Operand absolute(const void* p) { return {0, static_cast<int64_t>(reinterpret_cast<intptr_t>(p))}; }
  const void* keep(std::shared_ptr<void> memory);
  void define(int out, const ValueState& v);
  bool output_taken(int destiny) const { return contains(segment_.destinies, destiny); }

  // Two inputs of one node may be the same storage (x + reshape(x)): then it must not be overwritten.
  bool alone_in_storage(int i) const;
  int take_storage(size_t bytes, int last_use);

  // The storage lives at least as long as the value.
  void use_storage(int storage, int value);
  bool is_output(int value) const { return program_.last_use[value] == static_cast<int>(program_.nodes.size()); }

  // Input i, whose rows lie apart, copied together for operators that want it so; once for all of them.
  const ValueState& dense(int i);
  void release_dead();
  void add_step(const char* kernel, StepFn fn, const void* params, size_t bytes, std::span<const Operand> args,
                int parts, double flops) override;
  void run_now(StepFn fn, const void* params, std::span<const Operand> args);

  // Drops what a refused attempt at the current node has appended.
  struct Mark {
    size_t steps, params, args, buffers, owned, destinies, storages, refusals, choices;
    int n_bases;
  };
  Mark mark() const;
  void rewind(const Mark& m);

  // false: the segment ends before this node.
  bool plan_node();
  bool end_eagerly();

  // Every output leaves in a tensor of its own: a buffer that a step filled, an eager result, or a copy of the rest
  // (inputs, constants, known values, arena storage, an output given twice).
  void finish();

  static bool contains(const std::vector<int>& list, int x);
  bool is_owned(int base) const { return contains(segment_.owned, base); }

  double split_cost() const override { return split_cost_; }

  const Program& program_;
  Segment& segment_;
  int threads_;
  bool strict_;  // refuse what has no native form
  Choices choices_;
  double split_cost_ = kSplitCost;
  int current_ = 0;
  bool folding_ = false;
  ArenaLayout arena_;
  std::vector<Storage> storages_;
  std::vector<int> live_;
  std::vector<Place> places_;        // by value; empty: none, and no views
  std::map<int, int> parents_;       // output of a concatenation → storage, once an input has been computed there
  std::map<int, ValueState> dense_;  // value whose rows lie apart → its copy
};

}  // namespace fi
