// SPDX-License-Identifier: Apache-2.0
#include "csrc/engine/check.h"
#include "csrc/engine/planner.h"

namespace fi {
namespace {

// Goes on where a plan would end: what an operator would compute there is taken from the expectations.
class Checker final : public Planner {
 public:
  Checker(const Program& program, Segment& segment, const std::vector<ExpectedValue>& expected)
      : Planner(program, segment, 1), example_(program.n_values, 0), expected_(program.n_values, nullptr) {
    strict_ = false;
    values.resize(program.n_values);
    for (const ExpectedValue& e : expected) {
      check_model(e.value >= 0 && e.value < program.n_values, "value ", e.value, " of ", program.n_values);
      expected_[e.value] = &e;
    }
    for (const Port& p : program.inputs) expect(p.value, expected_[p.value] && expected_[p.value]->exact);
    for (const Constant& c : program.constants) {
      ValueState& v = values[c.value];
      v.desc = c.desc;
      if (!c.dense) continue;  // packed only: described, but not addressable
      v.known = c.dense.data;
      v.where = absolute(c.dense.data);
    }
  }

  Findings run() {
    const int n = static_cast<int>(program_.nodes.size());
    for (current_ = 0; current_ < n && found_.fault.empty(); ++current_) visit();
    return std::move(found_);
  }

 private:
  void visit() {
    const bool exact = reads_exact();
    if (!program_.ops[current_] || !reads_unknown()) {
      segment_.by_fallback = false;
      try {
        if (plan_node()) {
          for (int v : node().outputs)
            if (v >= 0) example_[v] = !exact;
          release_dead();
          return;
        }
        if (segment_.by_fallback) found_.by_reference.push_back({current_, reason(), exact || !program_.ops[current_]});
      } catch (const Error& e) {
        folding_ = false;
        if (exact) found_.fault = e.what();
      } catch (const std::exception&) {  // memory for an example shape
        folding_ = false;
      }
    }
    for (int v : node().outputs)
      if (v >= 0) expect(v, false);
    release_dead();
  }

  std::string reason() const {
    const std::string& text = segment_.refusals.back().second;
    const size_t colon = text.find(": ");
    return colon == std::string::npos ? text : text.substr(colon + 2);
  }

  void expect(int value, bool exact) {
    values[value] = {};
    example_[value] = !exact;
    if (!expected_[value]) return;
    values[value].desc = expected_[value]->desc;
    values[value].where = {segment_.arena_base, 0};
  }

  bool reads_unknown() const {
    for (int v : node().inputs)
      if (v >= 0 && values[v].desc.dtype == DType::none) return true;
    return false;
  }
  bool reads_exact() const {
    for (int v : node().inputs)
      if (v >= 0 && example_[v]) return false;
    return true;
  }

  std::vector<char> example_;  // by value: its type and shape are only an example
  std::vector<const ExpectedValue*> expected_;
  Findings found_;
};

}  // namespace

Findings check_program(const Program& program, const std::vector<ExpectedValue>& expected) {
  Segment segment;
  segment.n_bases = 1 + static_cast<int>(program.inputs.size());
  return Checker(program, segment, expected).run();
}

}  // namespace fi
