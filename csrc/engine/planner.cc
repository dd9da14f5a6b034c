// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <map>

#include "csrc/base/pool.h"
#include "csrc/engine/check.h"
#include "csrc/engine/memory.h"
#include "csrc/engine/node_inputs.h"
#include "csrc/engine/placement.h"
#include "csrc/ops/copy_step.h"

namespace fi {
namespace {

// Outputs up to this size are computed while planning when all inputs are known (shape arithmetic, small tables).
constexpr size_t kFoldBytes = 64 << 10;

struct FoldTooLarge {};

Status copy_step(const void* params, void* const* args, int, int) {
  std::memcpy(args[1], args[0], *static_cast<const size_t*>(params));
  return Status::ok;
}

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
  void sweep(int first) {
    const int n = static_cast<int>(program_.nodes.size());
    for (current_ = first; current_ < n; ++current_) {
      if (!plan_node()) {
        segment_.arena_bytes = arena_.bytes();
        segment_.state = std::move(values);
        return;
      }
      release_dead();
    }
    finish();
    segment_.arena_bytes = arena_.bytes();
    segment_.state = std::move(values);
  }

  // ------------------------------------------------------------------------------------------------ PlanContext
  int n_inputs() const override { return static_cast<int>(node().inputs.size()); }
  bool has_input(int i) const override { return i < n_inputs() && node().inputs[i] >= 0; }
  const Desc& input(int i) const override {
    check_model(has_input(i), "input ", i, " is required");
    return state(i).desc;
  }
  Operand in(int i) override {
    if (!has_input(i)) return Operand{0, 0};
    const ValueState& v = state(i);
    check_model(v.where.base >= 0, "input ", i, " is kept in packed form only");
    return v.row ? dense(i).where : v.where;
  }
  Operand in_rows(int i, int64_t& row) override {
    const ValueState& v = state(i);
    row = v.row ? v.row : v.desc.shape.back();
    return v.row ? v.where : in(i);
  }
  const void* known(int i) const override { return has_input(i) ? state(i).known : nullptr; }
  const void* require(int i) override {
    check_model(has_input(i), "input ", i, " is required");
    if (!state(i).known) throw NeedValue{i};
    return state(i).known;
  }

  int n_outputs() const override { return static_cast<int>(node().outputs.size()); }
  bool wants(int out) const override { return out < n_outputs() && node().outputs[out] >= 0; }

  Operand output(int out, DType dtype, const Shape& shape) override {
    ValueState v{{dtype, shape}, {}, nullptr, -1};
    const size_t bytes = v.desc.bytes();
    if (folding_) {
      if (bytes > kFoldBytes) throw FoldTooLarge{};
      v.known = keep(allocate_bytes(bytes));
      v.where = absolute(v.known);
    } else {
      const int value = wants(out) ? node().outputs[out] : -1;
      const int destiny = value < 0 ? -1 : program_.destiny[value];
      if (destiny >= 0 && !output_taken(destiny)) {
        v.where = {segment_.n_bases++, 0};
        segment_.buffers.push_back({v.where.base, v.desc});
        segment_.owned.push_back(v.where.base);
        segment_.destinies.push_back(destiny);
      } else {
        const auto parent = parents_.find(value);
        v.storage = parent != parents_.end() ? parent->second
                                             : take_storage(bytes, value < 0 ? current_ : program_.last_use[value]);
        v.where = {segment_.arena_base, static_cast<int64_t>(storages_[v.storage].offset)};
      }
    }
    define(out, v);
    return v.where;
  }

  Operand output_rows(int out, DType dtype, const Shape& shape, int64_t& row) override {
    row = shape.rank() ? shape.back() : 1;
    if (folding_ || places_.empty() || !wants(out)) return output(out, dtype, shape);
    const int value = node().outputs[out];
    const Place& p = places_[value];
    if (p.parent < 0) return output(out, dtype, shape);
    const auto [at, fresh] = parents_.try_emplace(p.parent, -1);
    if (fresh) at->second = take_storage(p.bytes, program_.last_use[p.parent]);
    ValueState v{{dtype, shape}, {segment_.arena_base, 0}, nullptr, at->second, row = p.row};
    v.where.offset = static_cast<int64_t>(storages_[v.storage].offset) + p.offset;
    use_storage(v.storage, value);
    define(out, v);
    return v.where;
  }

  bool view(int out, int i, const Shape& shape, int64_t at) override {
    if (!wants(out)) return true;
    const int value = node().outputs[out];
    ValueState v = state(i);
    if (folding_ || places_.empty() || v.where.base < 0 || program_.destiny[value] >= 0 || is_output(value))
      return false;
    if (v.row == 0) v.row = v.desc.shape.back();
    v.where = v.where.plus(at * static_cast<int64_t>(size_of(v.desc.dtype)));
    v.desc.shape = shape;
    v.known = nullptr;
    if (v.storage >= 0) use_storage(v.storage, value);
    define(out, v);
    return true;
  }

  Operand output_over(int out, DType dtype, const Shape& shape, int i) override {
    const Desc desc{dtype, shape};
    if (!folding_ && wants(out) && has_input(i)) {
      const ValueState& source = state(i);
      const int value = node().outputs[out];
      if (source.storage >= 0 && source.row == 0 && program_.destiny[value] < 0 &&
          storages_[source.storage].last_use == current_ && storages_[source.storage].bytes == desc.bytes() &&
          alone_in_storage(i)) {
        ValueState v{desc, source.where, nullptr, source.storage};
        storages_[v.storage].last_use = std::max(current_, program_.last_use[value]);
        define(out, v);
        return v.where;
      }
    }
    return output(out, dtype, shape);
  }

  void alias(int out, int i, DType dtype, const Shape& shape) override {
    check_model(has_input(i), "input ", i, " is required");
    ValueState v = state(i);
    check_model(v.where.base >= 0, "input ", i, " is kept in packed form only");
    if (v.row) v = dense(i);
    v.desc = {dtype, shape};
    if (v.storage >= 0 && wants(out)) use_storage(v.storage, node().outputs[out]);
    define(out, v);
  }

  void known_output(int out, DType dtype, const Shape& shape, const void* data) override {
    ValueState v{{dtype, shape}, {}, nullptr, -1};
    auto memory = allocate_bytes(v.desc.bytes());
    if (v.desc.bytes()) std::memcpy(memory.get(), data, v.desc.bytes());
    v.known = keep(std::move(memory));
    v.where = absolute(v.known);
    define(out, v);
  }

  Operand scratch(size_t bytes) override {
    if (folding_) {
      if (bytes > (kFoldBytes << 4)) throw FoldTooLarge{};
      return absolute(keep(allocate_bytes(bytes)));
    }
    const int s = take_storage(bytes, current_);
    return {segment_.arena_base, static_cast<int64_t>(storages_[s].offset)};
  }

  Operand address(const void* data) override { return absolute(data); }
  int threads() const override { return folding_ ? 1 : threads_; }
  Isa isa() const override { return program_.isa; }
  void refuse(const std::string& reason) override {
    if (!folding_) segment_.refusals.emplace_back(current_, reason);
  }
  bool tuning() const override { return choices_.on() && !folding_; }
  int choose(const std::string& problem, std::span<const char* const> candidates, int fallback) override {
    return tuning() ? choices_.choose(current_, problem, candidates, fallback) : fallback;
  }

 protected:
  struct Storage {
    size_t offset, bytes;
    int last_use;
    bool live;
  };

  const Node& node() const { return program_.nodes[current_]; }
  const ValueState& state(int i) const { return values[node().inputs[i]]; }
  static Operand absolute(const void* p) { return {0, static_cast<int64_t>(reinterpret_cast<intptr_t>(p))}; }
  const void* keep(std::shared_ptr<void> memory) {
    segment_.memory.push_back(std::move(memory));
    return segment_.memory.back().get();
  }

  void define(int out, const ValueState& v) {
    if (wants(out)) values[node().outputs[out]] = v;
  }

  bool output_taken(int destiny) const { return contains(segment_.destinies, destiny); }

  // Two inputs of one node may be the same storage (x + reshape(x)): then it must not be overwritten.
  bool alone_in_storage(int i) const {
    for (int k = 0; k < n_inputs(); ++k)
      if (k != i && has_input(k) && state(k).storage == state(i).storage) return false;
    return true;
  }

  int take_storage(size_t bytes, int last_use) {
    storages_.push_back({arena_.take(bytes), bytes, std::max(last_use, current_), true});
    live_.push_back(static_cast<int>(storages_.size()) - 1);
    return live_.back();
  }

  // The storage lives at least as long as the value.
  void use_storage(int storage, int value) {
    int& last = storages_[storage].last_use;
    last = std::max({last, current_, program_.last_use[value]});
  }
  bool is_output(int value) const { return program_.last_use[value] == static_cast<int>(program_.nodes.size()); }

  // Input i, whose rows lie apart, copied together for operators that want it so; once for all of them.
  const ValueState& dense(int i) {
    const int value = node().inputs[i];
    const ValueState& v = values[value];
    const auto [at, fresh] = dense_.try_emplace(value);
    if (!fresh) return at->second;
    const int s = take_storage(v.desc.bytes(), program_.last_use[value]);
    at->second = {v.desc, {segment_.arena_base, static_cast<int64_t>(storages_[s].offset)}, nullptr, s};
    const int64_t unit = static_cast<int64_t>(size_of(v.desc.dtype)), bytes = v.desc.shape.back() * unit;
    add_row_copy(*this, v.desc.shape.elements(0, v.desc.shape.rank() - 1), bytes, v.row * unit, bytes, v.where,
                 at->second.where);
    return at->second;
  }

  void release_dead() {
    std::erase_if(live_, [&](int s) {
      if (storages_[s].last_use > current_) return false;
      arena_.release(storages_[s].offset, storages_[s].bytes);
      return true;
    });
  }

  void add_step(const char* kernel, StepFn fn, const void* params, size_t bytes, std::span<const Operand> args,
                int parts, double flops) override {
    if (folding_) {
      run_now(fn, params, args);
      return;
    }
    const size_t at = (segment_.params.size() + 15) / 16 * 16;
    segment_.params.resize(at + bytes);
    std::memcpy(segment_.params.data() + at, params, bytes);
    segment_.steps.push_back({fn, static_cast<uint32_t>(at), static_cast<uint32_t>(segment_.args.size()),
                              static_cast<uint16_t>(args.size()), static_cast<uint16_t>(std::clamp(parts, 1, 65535)),
                              current_, kernel, flops});
    segment_.args.insert(segment_.args.end(), args.begin(), args.end());
  }

  void run_now(StepFn fn, const void* params, std::span<const Operand> args) {
    std::vector<void*> pointers;
    for (const Operand& a : args) pointers.push_back(reinterpret_cast<void*>(static_cast<intptr_t>(a.offset)));
    const Status s = fn(params, pointers.data(), 0, 1);
    check(s == Status::ok, describe(s));
  }

  // Drops what a refused attempt at the current node has appended.
  struct Mark {
    size_t steps, params, args, buffers, owned, destinies, storages, refusals, choices;
    int n_bases;
  };
  Mark mark() const {
    return {segment_.steps.size(),   segment_.params.size(),    segment_.args.size(), segment_.buffers.size(),
            segment_.owned.size(),   segment_.destinies.size(), storages_.size(),     segment_.refusals.size(),
            segment_.choices.size(), segment_.n_bases};
  }
  void rewind(const Mark& m) {
    segment_.steps.resize(m.steps);
    segment_.params.resize(m.params);
    segment_.args.resize(m.args);
    segment_.buffers.resize(m.buffers);
    segment_.owned.resize(m.owned);
    segment_.destinies.resize(m.destinies);
    segment_.refusals.resize(m.refusals);
    segment_.choices.erase(segment_.choices.begin() + static_cast<std::ptrdiff_t>(m.choices), segment_.choices.end());
    segment_.n_bases = m.n_bases;
    for (size_t s = m.storages; s < storages_.size(); ++s) {
      arena_.release(storages_[s].offset, storages_[s].bytes);
      std::erase(live_, static_cast<int>(s));
    }
    storages_.resize(m.storages);
    std::erase_if(parents_, [&](const auto& p) { return p.second >= static_cast<int>(m.storages); });
    std::erase_if(dense_, [&](const auto& p) { return p.second.storage >= static_cast<int>(m.storages); });
  }

  // false: the segment ends before this node.
  bool plan_node() {
    const Op* op = program_.ops[current_].get();
    if (!op || (reads_opaque(node(), values) && !passes_opaque(node()))) {
      segment_.by_fallback = true;
      segment_.refusals.emplace_back(
          current_, words("reference fallback: ", op ? std::string("reads a string, sequence or optional")
                                                     : program_.fallback_reasons[current_]));
      return end_eagerly();
    }
    const Mark start = mark();
    try {
      if (all_known(node(), values)) {
        folding_ = true;
        try {
          op->plan(*this);
          folding_ = false;
          return true;
        } catch (const FoldTooLarge&) {
          folding_ = false;
        }
      }
      if (choices_.on()) split_cost_ = choices_.split_cost(current_, node(), descs_of(node(), values), threads_);
      op->plan(*this);
      return true;
    } catch (const NeedValue& need) {
      folding_ = false;
      rewind(start);
      segment_.end = SegmentEnd::need_value;
      segment_.pivot = current_;
      segment_.needed = node().inputs[need.input];
      return false;
    } catch (const RunEagerly&) {
      folding_ = false;
      rewind(start);
      return end_eagerly();
    } catch (const NotNative& why) {
      folding_ = false;
      rewind(start);
      if (strict_)
        throw UnsupportedError(
            words(program_.label(current_), " has no native form (", why.reason, "), which strict=True forbids"));
      segment_.refusals.emplace_back(current_, "reference fallback: " + why.reason);
      segment_.by_fallback = true;
      return end_eagerly();
    } catch (const UnsupportedError&) {
      throw;
    } catch (const ModelError& e) {
      throw ModelError(program_.label(current_) + ": " + e.what());
    } catch (const InputError& e) {
      throw InputError(program_.label(current_) + ": " + e.what());
    }
  }

  bool end_eagerly() {
    segment_.end = SegmentEnd::eager;
    segment_.pivot = current_;
    return false;
  }

  // Every output leaves in a tensor of its own: a buffer that a step filled, an eager result, or a copy of the rest
  // (inputs, constants, known values, arena storage, an output given twice).
  void finish() {
    segment_.end = SegmentEnd::finished;
    std::vector<int> used;
    current_ = static_cast<int>(program_.nodes.size()) - 1;
    for (const Port& port : program_.outputs) {
      const ValueState& v = values[port.value];
      OutputSource source{v.where.base, v.desc};
      if (v.desc.dtype != DType::opaque && (!is_owned(source.base) || contains(used, source.base))) {
        source.base = segment_.n_bases++;
        segment_.buffers.push_back({source.base, v.desc});
        const size_t bytes = v.desc.bytes();
        const Operand args[] = {v.where, {source.base, 0}};
        if (bytes) add_step("copy", copy_step, &bytes, sizeof bytes, args, 1, 0);
      }
      used.push_back(source.base);
      segment_.results.push_back(source);
    }
  }

  static bool contains(const std::vector<int>& list, int x) {
    return std::find(list.begin(), list.end(), x) != list.end();
  }
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

#include "csrc/engine/checker.inc"

}  // namespace

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

Findings check_program(const Program& program, const std::vector<ExpectedValue>& expected) {
  Segment segment;
  segment.n_bases = 1 + static_cast<int>(program.inputs.size());
  return Checker(program, segment, expected).run();
}

}  // namespace fi
