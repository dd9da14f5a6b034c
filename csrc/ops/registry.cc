// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <string_view>
#include <unordered_map>

#include "csrc/ops/op.h"

namespace fi {

#define FI_OP(domain, op, factory) std::unique_ptr<Op> factory(BuildContext&);
#include "csrc/ops/ops.inc"
#undef FI_OP

namespace {

const std::unordered_map<std::string, OpFactory>& table() {
  static const std::unordered_map<std::string, OpFactory> rows = {
#define FI_OP(domain, op, factory) {domain "::" op, &factory},
#include "csrc/ops/ops.inc"
#undef FI_OP
  };
  return rows;
}

}  // namespace

OpFactory find_op(const std::string& domain, const std::string& op) {
  const auto it = table().find(domain + "::" + op);
  return it == table().end() ? nullptr : it->second;
}

std::vector<std::string> native_ops() {
  std::vector<std::string> names;
  for (const auto& [name, factory] : table()) names.push_back(name);
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<int64_t> PlanContext::require_ints(int i) {
  const void* data = require(i);
  const Desc& d = input(i);
  const int64_t n = d.elements();
  if (d.dtype == DType::s64) {
    const auto* p = static_cast<const int64_t*>(data);
    return {p, p + n};
  }
  check(d.dtype == DType::s32, "input ", i, " is ", d, ", needed: int64");
  const auto* p = static_cast<const int32_t*>(data);
  return {p, p + n};
}

}  // namespace fi
