// SPDX-License-Identifier: Apache-2.0
#include "csrc/engine/planner.h"

#include <algorithm>

#include "csrc/engine/node_inputs.h"

namespace fi {
namespace {

Status copy_step(const void* params, void* const* args, int, int) {
  std::memcpy(args[1], args[0], *static_cast<const size_t*>(params));
  return Status::ok;
}

}  // namespace

void Planner::sweep(int first) {
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

void Planner::release_dead() {
  std::erase_if(live_, [&](int s) {
    if (storages_[s].last_use > current_) return false;
    arena_.release(storages_[s].offset, storages_[s].bytes);
    return true;
  });
}

Planner::Mark Planner::mark() const {
  return {segment_.steps.size(),   segment_.params.size(),    segment_.args.size(), segment_.buffers.size(),
          segment_.owned.size(),   segment_.destinies.size(), storages_.size(),     segment_.refusals.size(),
          segment_.choices.size(), segment_.n_bases};
}

void Planner::rewind(const Mark& m) {
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

bool Planner::plan_node() {
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

bool Planner::end_eagerly() {
  segment_.end = SegmentEnd::eager;
  segment_.pivot = current_;
  return false;
}

void Planner::finish() {
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

}  // namespace fi
