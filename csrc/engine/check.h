// SPDX-License-Identifier: Apache-2.0
// What is wrong with a program, or not native in it, that can be said before the first call: planning without running.
#pragma once
#include <string>
#include <vector>

#include "csrc/engine/program.h"

namespace fi {

// What is known of a value beforehand: of inputs, and of results that planning alone cannot tell.
struct ExpectedValue {
  int value;
  Desc desc;
  bool exact;  // every call has this type and shape; else an example
};

struct Findings {
  struct Refusal {
    int node;
    std::string reason;
    bool exact;  // else found for the example shapes
  };
  std::vector<Refusal> by_reference;
  std::string fault;  // every call would fail so; empty: nothing found
};
Findings check_program(const Program&, const std::vector<ExpectedValue>&);

}  // namespace fi
