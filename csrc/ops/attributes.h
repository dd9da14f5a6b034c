// SPDX-License-Identifier: Apache-2.0
// A node as the program holds it: operator, attributes, value numbers.
#pragma once
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "csrc/base/tensor.h"

namespace fi {

struct GraphRef {
  int index;  // into Program::subprograms
};

using Attribute = std::variant<int64_t, float, std::string, std::vector<int64_t>, std::vector<float>,
                               std::vector<std::string>, Tensor, GraphRef>;

// Typed access with defaults; a wrong kind or a missing required attribute is a ModelError that names it.
class Attributes {
 public:
  std::map<std::string, Attribute> items;

  bool has(const std::string& name) const { return items.count(name) != 0; }
  int64_t i(const std::string& name, int64_t fallback) const { return value_or(name, fallback); }
  int64_t i(const std::string& name) const { return value<int64_t>(name); }
  float f(const std::string& name, float fallback) const { return value_or(name, fallback); }
  float f(const std::string& name) const { return value<float>(name); }
  std::string s(const std::string& name, const std::string& fallback) const { return value_or(name, fallback); }
  std::string s(const std::string& name) const { return value<std::string>(name); }
  std::vector<int64_t> ints(const std::string& name, std::vector<int64_t> fallback = {}) const {
    return value_or(name, std::move(fallback));
  }
  std::vector<float> floats(const std::string& name, std::vector<float> fallback = {}) const {
    return value_or(name, std::move(fallback));
  }
  std::vector<std::string> strings(const std::string& name) const { return value_or(name, std::vector<std::string>{}); }
  const Tensor* tensor(const std::string& name) const { return has(name) ? &value_ref<Tensor>(name) : nullptr; }
  int graph(const std::string& name) const { return value_ref<GraphRef>(name).index; }

 private:
  template <class T>
  const T& value_ref(const std::string& name) const {
    const auto it = items.find(name);
    check_model(it != items.end(), "attribute '", name, "' is required");
    const T* v = std::get_if<T>(&it->second);
    check_model(v != nullptr, "attribute '", name, "' has the wrong type");
    return *v;
  }
  template <class T>
  T value(const std::string& name) const {
    return value_ref<T>(name);
  }
  template <class T>
  T value_or(const std::string& name, T fallback) const {
    return has(name) ? value_ref<T>(name) : fallback;
  }
};

struct Node {
  std::string op, domain, name;
  Attributes attributes;
  std::vector<int> inputs;   // value numbers; -1: optional input left out
  std::vector<int> outputs;  // value numbers; -1: optional output not wanted
};

}  // namespace fi
