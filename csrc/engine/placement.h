// SPDX-License-Identifier: Apache-2.0
// Which values can be computed where a concatenation along the last axis wants them, so that it copies nothing.
#pragma once
#include <vector>

#include "csrc/engine/plan.h"

namespace fi {

struct Place {
  int parent = -1;     // the concatenation's output, or -1: none
  int64_t offset = 0;  // bytes from its start
  int64_t row = 0;     // elements from one row of the parent to the next
  size_t bytes = 0;    // of the parent
};

// One place per value. `values`: what a first plan of the whole program found, for the shapes.
// A value takes the place of its first use in a concatenation; the input of a Split whose pieces lie side by side there
// takes theirs. Model outputs and known values take none. Empty when there is nothing to place.
std::vector<Place> find_places(const Program&, const std::vector<ValueState>& values);

}  // namespace fi
