// SPDX-License-Identifier: Apache-2.0
// What a plan chooses where tuning may know better: PlanContext::choose, and how many parts a node is worth.
#pragma once
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "csrc/ops/op.h"

namespace fi {

// Problem → label of the candidate to take. Without a table nothing is asked or recorded.
using Tuning = std::map<std::string, std::string>;

struct Choice {
  int node;
  std::string problem;
  std::vector<std::string> candidates;
  int chosen;  // -1: the usual rule, which is none of the candidates
  bool tuned;  // the table decided
};

class Choices {
 public:
  Choices(std::shared_ptr<const Tuning> table, std::vector<Choice>& made) : table_(std::move(table)), made_(made) {}
  bool on() const { return table_ != nullptr; }
  int choose(int node, const std::string& problem, std::span<const char* const> candidates, int fallback);
  // The cost from which this node's steps are cut: the usual one, or tuned to always or never.
  double split_cost(int index, const Node&, const std::vector<Desc>& inputs, int threads);

 private:
  std::shared_ptr<const Tuning> table_;
  std::vector<Choice>& made_;
};

}  // namespace fi
