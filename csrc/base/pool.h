// SPDX-License-Identifier: Apache-2.0
// One thread pool per process. The caller takes part; workers spin for some tens of microseconds and then park.
#pragma once
#include <string>

#include "csrc/base/step.h"

namespace fi {

// Runs fn(params, args, 0..parts-1, parts) on up to `threads` threads, part p on thread p % threads, and waits.
// When another caller holds the pool, all parts run on the calling thread: same bits, no waiting.
// Returns the first status that is not ok. Safe after fork(): a child starts its own workers.
Status run_parts(StepFn fn, const void* params, void* const* args, int parts, int threads);

// What went wrong, in words. For the status that this thread last got from a step or from run_parts.
std::string describe(Status);

}  // namespace fi
