// SPDX-License-Identifier: Apache-2.0
// Errors carry words for the person who reads them: what was given, what was needed. The planner adds the node.
#pragma once
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>

namespace fi {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};
// The model itself is wrong (attributes, types, a tampered file).
struct ModelError : Error {
  using Error::Error;
};
// The model is valid but cannot run as asked (strict=True and an operator without a native form).
struct UnsupportedError : ModelError {
  using ModelError::ModelError;
};
// What the caller passed to run() is wrong, or cannot be combined by the model.
struct InputError : Error {
  using Error::Error;
};

template <class... Args>
std::string words(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return out.str();
}

// check(ok, "axis ", axis, " is outside [", -rank, ", ", rank, ")")
template <class... Args>
inline void check(bool ok, const Args&... args) {
  if (!ok) [[unlikely]]
    throw InputError(words(args...));
}
template <class... Args>
inline void check_model(bool ok, const Args&... args) {
  if (!ok) [[unlikely]]
    throw ModelError(words(args...));
}

}  // namespace fi
