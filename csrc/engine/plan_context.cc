// SPDX-License-Identifier: Apache-2.0
// What an operator asks of the planner, and what it declares.
#include <algorithm>

#include "csrc/base/pool.h"
#include "csrc/engine/planner.h"
#include "csrc/ops/copy_step.h"

namespace fi {
namespace {

// Outputs up to this size are computed while planning when all inputs are known (shape arithmetic, small tables).
constexpr size_t kFoldBytes = 64 << 10;

}  // namespace

const Desc& Planner::input(int i) const {
  check_model(has_input(i), "input ", i, " is required");
  return state(i).desc;
}

Operand Planner::in(int i) {
  if (!has_input(i)) return Operand{0, 0};
  const ValueState& v = state(i);
  check_model(v.where.base >= 0, "input ", i, " is kept in packed form only");
  return v.row ? dense(i).where : v.where;
}

Operand Planner::in_rows(int i, int64_t& row) {
  const ValueState& v = state(i);
  row = v.row ? v.row : v.desc.shape.back();
  return v.row ? v.where : in(i);
}

const void* Planner::require(int i) {
  check_model(has_input(i), "input ", i, " is required");
  if (!state(i).known) throw NeedValue{i};
  return state(i).known;
}

Operand Planner::output(int out, DType dtype, const Shape& shape) {
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

Operand Planner::output_rows(int out, DType dtype, const Shape& shape, int64_t& row) {
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

bool Planner::view(int out, int i, const Shape& shape, int64_t at) {
  if (!wants(out)) return true;
  const int value = node().outputs[out];
  ValueState v = state(i);
  if (folding_ || places_.empty() || v.where.base < 0 || program_.destiny[value] >= 0 || is_output(value)) return false;
  if (v.row == 0) v.row = v.desc.shape.back();
  v.where = v.where.plus(at * static_cast<int64_t>(size_of(v.desc.dtype)));
  v.desc.shape = shape;
  v.known = nullptr;
  if (v.storage >= 0) use_storage(v.storage, value);
  define(out, v);
  return true;
}

Operand Planner::output_over(int out, DType dtype, const Shape& shape, int i) {
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

void Planner::alias(int out, int i, DType dtype, const Shape& shape) {
  check_model(has_input(i), "input ", i, " is required");
  ValueState v = state(i);
  check_model(v.where.base >= 0, "input ", i, " is kept in packed form only");
  if (v.row) v = dense(i);
  v.desc = {dtype, shape};
  if (v.storage >= 0 && wants(out)) use_storage(v.storage, node().outputs[out]);
  define(out, v);
}

void Planner::known_output(int out, DType dtype, const Shape& shape, const void* data) {
  ValueState v{{dtype, shape}, {}, nullptr, -1};
  auto memory = allocate_bytes(v.desc.bytes());
  if (v.desc.bytes()) std::memcpy(memory.get(), data, v.desc.bytes());
  v.known = keep(std::move(memory));
  v.where = absolute(v.known);
  define(out, v);
}

Operand Planner::scratch(size_t bytes) {
  if (folding_) {
    if (bytes > (kFoldBytes << 4)) throw FoldTooLarge{};
    return absolute(keep(allocate_bytes(bytes)));
  }
  const int s = take_storage(bytes, current_);
  return {segment_.arena_base, static_cast<int64_t>(storages_[s].offset)};
}

void Planner::refuse(const std::string& reason) {
  if (!folding_) segment_.refusals.emplace_back(current_, reason);
}

int Planner::choose(const std::string& problem, std::span<const char* const> candidates, int fallback) {
  return tuning() ? choices_.choose(current_, problem, candidates, fallback) : fallback;
}

const void* Planner::keep(std::shared_ptr<void> memory) {
  segment_.memory.push_back(std::move(memory));
  return segment_.memory.back().get();
}

void Planner::define(int out, const ValueState& v) {
  if (wants(out)) values[node().outputs[out]] = v;
}

bool Planner::alone_in_storage(int i) const {
  for (int k = 0; k < n_inputs(); ++k)
    if (k != i && has_input(k) && state(k).storage == state(i).storage) return false;
  return true;
}

int Planner::take_storage(size_t bytes, int last_use) {
  storages_.push_back({arena_.take(bytes), bytes, std::max(last_use, current_), true});
  live_.push_back(static_cast<int>(storages_.size()) - 1);
  return live_.back();
}

void Planner::use_storage(int storage, int value) {
  int& last = storages_[storage].last_use;
  last = std::max({last, current_, program_.last_use[value]});
}

const ValueState& Planner::dense(int i) {
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

void Planner::add_step(const char* kernel, StepFn fn, const void* params, size_t bytes, std::span<const Operand> args,
                       int parts, double flops) {
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

void Planner::run_now(StepFn fn, const void* params, std::span<const Operand> args) {
  std::vector<void*> pointers;
  for (const Operand& a : args) pointers.push_back(reinterpret_cast<void*>(static_cast<intptr_t>(a.offset)));
  const Status s = fn(params, pointers.data(), 0, 1);
  check(s == Status::ok, describe(s));
}

bool Planner::contains(const std::vector<int>& list, int x) {
  return std::find(list.begin(), list.end(), x) != list.end();
}

}  // namespace fi
