// SPDX-License-Identifier: Apache-2.0
// What an operator is to the engine. A node's life:
//   1. build (once per program): a factory reads the attributes, packs constant weights, returns an Op;
//   2. plan (once per set of input shapes): Op::plan infers output shapes, chooses kernels, appends steps;
//   3. run (per call): the executor calls the steps' functions; Op is not involved.
// Operators whose output shape depends on data, control flow and the reference fallback run eagerly instead
// (run_eager).
#pragma once
#include <cstring>
#include <functional>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "csrc/base/cpu.h"
#include "csrc/base/step.h"
#include "csrc/ops/attributes.h"

namespace fi {

// ---------------------------------------------------------------------------------------------------------- build

// How a constant is kept in a kernel's own layout. `layout` names it completely (kernel tile, tap order, group count):
// equal names mean equal bytes. The instruction set shows only in the panel width, written `_nr<width>`; names that
// differ there alone must have the same size in bytes.
struct Packing {
  std::string layout;
  size_t bytes = 0;
  std::function<void(const Tensor& dense, void* packed)> pack;
  // Inverse, from a layout that a program was saved with on another instruction set; empty: cannot.
  std::function<void(const std::string& layout, const void* packed, void* dense)> unpack;
};

class BuildContext {
 public:
  virtual ~BuildContext() = default;
  const Node& node;
  Isa isa;
  explicit BuildContext(const Node& n, Isa isa) : node(n), isa(isa) {}

  int n_inputs() const { return static_cast<int>(node.inputs.size()); }
  bool has_input(int i) const { return i < n_inputs() && node.inputs[i] >= 0; }
  // Type and shape of a constant input, or nullptr. Does not keep the dense data alive.
  virtual const Desc* constant_desc(int input) const = 0;
  // The constant's data, or nullptr when it is not constant. Keeps the dense form in the program.
  virtual const Tensor* constant(int input) = 0;
  // The constant in a packed layout, shared by all nodes that ask for the same one. If every use of a constant is
  // packed, the dense form is dropped. nullptr when the input is not constant.
  virtual const void* packed(int input, const Packing&) = 0;
};

// ----------------------------------------------------------------------------------------------------------- plan

// Where an operand's bytes are: a base, known per run, and an offset. Opaque to operators.
struct Operand {
  int32_t base = -1;
  int64_t offset = 0;
  Operand plus(int64_t bytes) const { return {base, offset + bytes}; }
};

// Thrown by PlanContext::require when the value is only known at run time: the planner ends the segment there,
// and plans the rest when the value has been computed. Not an error.
struct NeedValue {
  int input;
};
// Thrown by PlanContext::eager.
struct RunEagerly {};
// Thrown by PlanContext::not_native: run this node through the reference fallback (a ModelError under strict).
struct NotNative {
  std::string reason;
};

class PlanContext {
 public:
  virtual ~PlanContext() = default;

  // -- inputs
  virtual int n_inputs() const = 0;
  virtual bool has_input(int i) const = 0;
  virtual const Desc& input(int i) const = 0;  // throws ModelError when absent
  const Shape& shape(int i) const { return input(i).shape; }
  DType dtype(int i) const { return input(i).dtype; }
  virtual Operand in(int i) = 0;  // absent input: an operand that resolves to nullptr
  // The input where it lies, its rows (along the last axis) `row` elements apart; in() would copy it if they are not
  // dense.
  virtual Operand in_rows(int i, int64_t& row) = 0;
  // The bytes, if already known while planning (constants, folded shape arithmetic), else nullptr.
  virtual const void* known(int i) const = 0;
  // The bytes; ends the segment if they are not known yet.
  virtual const void* require(int i) = 0;
  // A known int32/int64 input as a list; ends the segment if not known yet.
  std::vector<int64_t> require_ints(int i);

  // -- outputs
  virtual int n_outputs() const = 0;
  virtual bool wants(int out) const = 0;
  virtual Operand output(int out, DType, const Shape&) = 0;
  // As output(), but may take over the storage of input i if this node is its last use and the bytes are equal.
  virtual Operand output_over(int out, DType, const Shape&, int i) = 0;
  // As output(), but the rows may be `row` elements apart: a concatenation along the last axis has its inputs computed
  // in place.
  virtual Operand output_rows(int out, DType, const Shape&, int64_t& row) = 0;
  // The output is `shape.back()` columns of input i's rows, from column `at` on, and shares their memory. false: it
  // cannot (the caller copies).
  virtual bool view(int out, int i, const Shape&, int64_t at) = 0;
  // The output is the input under another shape (and same-size type): no step, no copy.
  virtual void alias(int out, int i, DType, const Shape&) = 0;
  // The output's value is already known (Shape, Size, ...).
  virtual void known_output(int out, DType, const Shape&, const void* data) = 0;

  // -- steps
  virtual Operand scratch(size_t bytes) = 0;      // lives until the node's last step
  virtual Operand address(const void* data) = 0;  // memory that the Op owns
  virtual int threads() const = 0;
  virtual Isa isa() const = 0;
  // The steps will never run (another device asks for shapes), and packed() gave no data: do not read it.
  virtual bool shapes_only() const { return false; }
  // Appends a step. kernel: its name for explain(). parts: at most what the work is worth, see parts_for().
  template <class P>
  void step(const char* kernel, StepFn fn, const P& params, std::span<const Operand> args, int parts = 1,
            double flops = 0) {
    static_assert(std::is_trivially_copyable_v<P> && alignof(P) <= 16);
    add_step(kernel, fn, &params, sizeof(P), args, parts, flops);
  }
  template <class P>
  void step(const char* kernel, StepFn fn, const P& params, std::initializer_list<Operand> args, int parts = 1,
            double flops = 0) {
    step(kernel, fn, params, std::span<const Operand>(args.begin(), args.size()), parts, flops);
  }
  // For explain(): why a faster kernel was not taken.
  virtual void refuse(const std::string& reason) = 0;
  // Whether choose() may answer anything but the fallback: else its problem need not be put into words.
  virtual bool tuning() const { return false; }
  // Which candidate tuning found fastest, else `fallback` (-1: none of them). problem: its kind, a blank, and all that
  // the choice may depend on. Where candidates differ in bits that is one sample's shape, never the batch or the
  // threads.
  virtual int choose(const std::string& problem, std::span<const char* const> candidates, int fallback) {
    return fallback;
  }
  // Number of parts for work of about `cost` basic units (one unit: a vector-width memory or arithmetic operation,
  // roughly 1 ns / 4): 1 below the price of waking another core, else threads().
  int parts_for(double cost) const { return cost < split_cost() ? 1 : threads(); }
  static constexpr double kSplitCost = 40000;

  [[noreturn]] void eager() { throw RunEagerly{}; }
  [[noreturn]] void not_native(const std::string& reason) { throw NotNative{reason}; }

 private:
  virtual double split_cost() const { return kSplitCost; }
  virtual void add_step(const char* kernel, StepFn fn, const void* params, size_t bytes, std::span<const Operand> args,
                        int parts, double flops) = 0;
};

// ---------------------------------------------------------------------------------------------------------- eager

class EagerContext {
 public:
  virtual ~EagerContext() = default;
  virtual int n_inputs() const = 0;
  virtual const Tensor& input(int i) const = 0;  // an empty Tensor when absent
  virtual int n_outputs() const = 0;
  virtual bool wants(int out) const = 0;
  virtual void set(int out, Tensor) = 0;
  Tensor& allocate(int out, DType dtype, const Shape& shape) {
    set(out, allocate_tensor(dtype, shape));
    return result(out);
  }
  virtual Tensor& result(int out) = 0;
  // Runs a subprogram (body of If, Loop, Scan).
  virtual std::vector<Tensor> run_graph(int index, std::vector<Tensor> inputs) = 0;
  // What a subprogram declares of an output: unknown extents are 0; dtype none when it declares nothing.
  virtual Desc declared_output(int index, int output) const = 0;
  virtual int threads() const = 0;
};

class Op {
 public:
  virtual ~Op() = default;
  virtual void plan(PlanContext&) const = 0;
  virtual void run_eager(EagerContext&) const { throw Error("operator has no eager form"); }
};

using OpFactory = std::unique_ptr<Op> (*)(BuildContext&);

// nullptr: no native form. The table is csrc/ops/ops.inc.
OpFactory find_op(const std::string& domain, const std::string& op);
std::vector<std::string> native_ops();  // "domain::Op", sorted

// For operators that keep no state: FI_STATELESS_OP(Shape, plan_shape) defines make_Shape.
template <void (*Plan)(PlanContext&, const Node&)>
struct PlainOp final : Op {
  const Node& node;
  explicit PlainOp(const Node& n) : node(n) {}
  void plan(PlanContext& ctx) const override { Plan(ctx, node); }
};
template <void (*Plan)(PlanContext&, const Node&)>
std::unique_ptr<Op> make_plain(BuildContext& ctx) {
  return std::make_unique<PlainOp<Plan>>(ctx.node);
}

}  // namespace fi
