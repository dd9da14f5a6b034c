// SPDX-License-Identifier: Apache-2.0
// What the planner asks about all inputs of a node at once.
#pragma once
#include "csrc/engine/plan.h"

namespace fi {

inline bool all_known(const Node& node, const std::vector<ValueState>& values) {
  for (int v : node.inputs)
    if (v >= 0 && !values[v].known) return false;
  return true;
}

inline std::vector<Desc> descs_of(const Node& node, const std::vector<ValueState>& values) {
  std::vector<Desc> all;
  for (int v : node.inputs) all.push_back(v >= 0 ? values[v].desc : Desc{});
  return all;
}

inline bool reads_opaque(const Node& node, const std::vector<ValueState>& values) {
  for (int v : node.inputs)
    if (v >= 0 && values[v].desc.dtype == DType::opaque) return true;
  return false;
}

inline bool passes_opaque(const Node& node) {
  const std::string& op = node.op;
  return node.domain.empty() && (op == "If" || op == "Loop" || op == "Scan" || op == "Identity");
}

}  // namespace fi
