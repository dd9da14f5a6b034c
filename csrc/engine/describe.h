// SPDX-License-Identifier: Apache-2.0
// What a planned step reads and writes, for explain() and profile(). Not on any path that plans or runs.
#pragma once
#include "csrc/engine/plan.h"

namespace fi {

struct StepFacts {
  Desc out;  // the node's output that the step fills; of a step that fills scratch, the node's first output
  size_t weight_bytes{};  // of `bytes`, those of constants
  size_t bytes{};  // of the node's inputs that it reads and outputs that it writes, each once; scratch is not counted
};

StepFacts facts_of(const Program&, const Segment&, size_t step);
// Of the eager operator that a segment ends with. next: the segment that follows, or nullptr when it is not planned.
StepFacts facts_of_pivot(const Program&, const Segment&, const Segment* next);

}  // namespace fi
