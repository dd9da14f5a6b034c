// SPDX-License-Identifier: Apache-2.0
// The one calling convention between the executor and everything it runs.
#pragma once
#include <cstdint>

namespace fi {

// What a step may report; anything but ok becomes an exception that names the node.
enum class Status : uint32_t { ok = 0, index_out_of_range, division_by_zero, bad_value };
// Returns index_out_of_range and keeps, for this thread, what the message will say: needed was low <= index < high.
Status bad_index(int64_t index, int64_t low, int64_t high);

// params: the trivially copyable struct bound when the plan was made. args: one pointer per operand, in the order
// given. The work is cut in `parts`; this call does number `part`. Which thread runs a part, and how many parts there
// are, must not change a single output bit. No allocation, no locks, no exceptions.
using StepFn = Status (*)(const void* params, void* const* args, int part, int parts);

// The static partition: [begin, end) of `n` items for `part`, in multiples of `grain`.
struct Range {
  int64_t begin, end;
};
inline Range part_of(int64_t n, int part, int parts, int64_t grain = 1) {
  const int64_t blocks = (n + grain - 1) / grain;
  const int64_t b = blocks * part / parts * grain, e = blocks * (part + 1) / parts * grain;
  return {b < n ? b : n, e < n ? e : n};
}

}  // namespace fi
