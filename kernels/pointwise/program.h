// SPDX-License-Identifier: Apache-2.0
// Making, checking and binding programs of pointwise.h.
#pragma once
#include <string>
#include <vector>

#include "csrc/base/cpu.h"
#include "kernels/pointwise/pointwise.h"
#include "kernels/pointwise/walk.h"

namespace fi {

// A program while it is put together. Values: input i is `i`; immediate() and op() return further value numbers.
class TileProgramBuilder {
 public:
  explicit TileProgramBuilder(int inputs);
  int immediate(float value);
  // Throws ModelError for an unknown name, a wrong operand count or a float where a bool is needed.
  int op(const std::string& name, int a, int b = -1, int c = -1);
  void output(int value) { outputs_.push_back(value); }

  // What finish() made.
  TileProgram program;
  std::vector<bool> input_is_bool, output_is_bool;
  // Output j may be written over input i (same shape, float32): input i is not read after output j's instruction.
  bool may_overwrite(int output, int input) const;
  // Drops unused instructions, fuses pairs, assigns slots. Throws ModelError when the program is too large.
  void finish();

 private:
  struct Code {
    TileOp op;
    int arg[3];
    int uses = 0;
  };
  enum class Kind : char { unknown, number, truth };
  static constexpr int kImmediate = 1000, kResult = 2000;

  Kind kind_of(int value) const;
  void demand(int value, Kind, const std::string& name);
  void count_uses();
  void fuse();
  void drop_unused();
  void copy_plain_outputs();
  void assign_slots();
  int number_of(int value) const;

  int inputs_;
  std::vector<Kind> kind_;
  std::vector<float> immediates_;
  std::vector<Code> code_;
  std::vector<int> outputs_;
  std::vector<int> last_read_, made_at_;  // instruction numbers, per input and per output
};

// Fills everything but `program`; params must have room for walk.inputs inputs.
void bind_walk(PointwiseParams& params, int64_t* strides, const Walk& walk);

struct PointwiseKernel {
  const char* name;
  StepFn run;
};
PointwiseKernel select_pointwise(Isa isa);
// In the units of PlanContext::parts_for.
double cost_of(const TileProgram& program, int64_t elements);

}  // namespace fi
