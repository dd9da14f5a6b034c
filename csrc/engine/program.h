// SPDX-License-Identifier: Apache-2.0
// The immutable form of a model: typed operators, constants (dense or packed), inputs and outputs.
#pragma once
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "csrc/engine/choices.h"
#include "csrc/ops/op.h"

namespace fi {

// An input or output of the model. extents[i] < 0: the extent is symbolic and named symbols[i].
struct Port {
  int value = -1;
  std::string name;
  DType dtype = DType::none;  // none: not declared, not checked
  bool ranked = false;
  std::vector<int64_t> extents;
  std::vector<std::string> symbols;  // one that begins with '?' is no name: it may differ from place to place
  struct Range {
    int64_t least = 0, greatest = std::numeric_limits<int64_t>::max();
  };
  std::map<std::string, Range> ranges;  // of symbols
};

struct Constant {
  int value = -1;
  Desc desc;
  Tensor dense;                                         // empty once every use is packed
  std::map<std::string, std::shared_ptr<void>> packed;  // layout → bytes
  std::map<std::string, size_t> packed_bytes;
};

// What a program is made from; filled by the bindings from Python or from a saved file, validated by Program.
struct ProgramSpec {
  int n_values = 0;
  std::vector<Port> inputs, outputs;
  std::vector<Constant> constants;
  std::vector<Node> nodes;
  std::vector<std::shared_ptr<class Program>> subprograms;
};

// Runs node `index` outside the engine (the reference fallback). Inputs may be empty tensors (left out).
using Fallback = std::function<std::vector<Tensor>(int index, std::span<const Tensor> inputs)>;

class Program {
 public:
  // Validates the specification, builds the operators and packs constants. Throws ModelError.
  // shapes_only: constants are not packed, and nothing can run: plans tell shapes and known values to another device.
  Program(ProgramSpec spec, Fallback fallback, bool strict, bool shapes_only = false);

  std::vector<Port> inputs, outputs;
  std::vector<Constant> constants;
  std::vector<Node> nodes;
  std::vector<std::unique_ptr<Op>> ops;       // nullptr: no native form, see reasons
  std::vector<std::string> fallback_reasons;  // per node; empty: native so far
  std::vector<std::shared_ptr<Program>> subprograms;
  Fallback fallback;
  bool strict = false;
  bool shapes_only = false;
  int n_values = 0;
  Isa isa = Isa::baseline;

  std::vector<int> constant_of;  // value → index into constants, or -1
  std::vector<int> last_use;     // value → last node that reads it; nodes.size() for model outputs
  std::vector<int> destiny;      // value → output whose buffer it may be computed in, or -1

  // "node 'x' (Conv)"
  std::string label(int node) const;

  // What plans made from now on choose by; null (the default): tuning is off.
  std::shared_ptr<const Tuning> tuning() const {
    std::lock_guard lock(tuning_guard_);
    return tuning_;
  }
  void set_tuning(Tuning table) {
    std::lock_guard lock(tuning_guard_);
    tuning_ = std::make_shared<const Tuning>(std::move(table));
  }

 private:
  mutable std::mutex tuning_guard_;
  std::shared_ptr<const Tuning> tuning_;

  void validate() const;
  void analyse();
  void build();
};

}  // namespace fi
