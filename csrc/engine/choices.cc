// SPDX-License-Identifier: Apache-2.0
#include "csrc/engine/choices.h"

#include <limits>
#include <sstream>
#include <type_traits>

namespace fi {
namespace {

template <class T>
void write(std::ostream& out, const std::vector<T>& values) {
  for (const T& v : values) out << v << ',';
}

// Tensors and graphs are left out: no kernel's speed hangs on them.
void write(std::ostream& out, const Attribute& attribute) {
  std::visit(
      [&](const auto& value) {
        using T = std::decay_t<decltype(value)>;
        if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::string>)
          out << value;
        else if constexpr (!std::is_same_v<T, Tensor> && !std::is_same_v<T, GraphRef>)
          write(out, value);
      },
      attribute);
}

}  // namespace

int Choices::choose(int node, const std::string& problem, std::span<const char* const> candidates, int fallback) {
  if (!table_) return fallback;
  Choice made{node, problem, {candidates.begin(), candidates.end()}, fallback, false};
  if (const auto found = table_->find(problem); found != table_->end())
    for (size_t i = 0; i < made.candidates.size(); ++i)
      if (made.candidates[i] == found->second) made.chosen = static_cast<int>(i), made.tuned = true;
  made_.push_back(std::move(made));
  return made_.back().chosen;
}

double Choices::split_cost(int index, const Node& node, const std::vector<Desc>& inputs, int threads) {
  constexpr double never = std::numeric_limits<double>::infinity();
  static constexpr const char* kCandidates[] = {"one part", "all threads"};
  if (!table_ || threads == 1) return PlanContext::kSplitCost;
  std::ostringstream problem;
  problem << "parts " << threads << ' ' << node.domain << '.' << node.op;
  for (const auto& [name, value] : node.attributes.items) {
    problem << ' ' << name << '=';
    write(problem, value);
  }
  for (const Desc& d : inputs) problem << ' ' << d;
  const int chosen = choose(index, problem.str(), kCandidates, -1);
  return chosen < 0 ? PlanContext::kSplitCost : chosen == 0 ? never : 0;
}

}  // namespace fi
