// SPDX-License-Identifier: Apache-2.0
// Which instruction set to run, decided once per process; FASTINFER_ISA forces a lower one.
#pragma once
#include <string>
#include <vector>

namespace fi {

// Ordered: each includes all before it. The token is the same in file names, CMake, FASTINFER_ISA and test ids.
enum class Isa : int { baseline = 0, avx2 = 1, avx512 = 2, avx512vnni = 3, avx512bf16 = 4 };

const char* name_of(Isa);
Isa parse_isa(const std::string& name);  // throws InputError, listing the names
Isa detected_isa();                      // best set that this CPU and OS support
// The set in force: FASTINFER_ISA if set (an error if this CPU lacks it), else detected_isa().
Isa active_isa();
// For tests: changes the set for programs built from now on.
void force_isa(Isa);

struct Caches {
  long l1 = 32 << 10, l2 = 1 << 20, l3 = 16 << 20;  // bytes; L1d and L2 per core
};
const Caches& caches();
// Cores this process may use: min(affinity mask, cgroup cpu quota rounded up), at least 1.
int usable_cores();

}  // namespace fi
