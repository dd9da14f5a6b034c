// SPDX-License-Identifier: Apache-2.0
#include "csrc/base/cpu.h"

#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <fstream>

#include "csrc/base/error.h"

namespace fi {
namespace {

constexpr const char* kNames[] = {"baseline", "avx2", "avx512", "avx512vnni", "avx512bf16"};
std::atomic<int> g_forced{-1};

Isa from_environment() {
  const char* text = std::getenv("FASTINFER_ISA");
  if (!text || !*text) return detected_isa();
  const Isa asked = parse_isa(text);
  check(asked <= detected_isa(), "FASTINFER_ISA=", text, ": this CPU lacks it (best here: ", name_of(detected_isa()),
        ")");
  return asked;
}

// cpu.max of cgroup v2 ("max 100000" or "200000 100000"), or the two files of v1; 0 when unlimited.
double cgroup_cores() {
  std::string quota, period;
  if (std::ifstream v2("/sys/fs/cgroup/cpu.max"); v2 >> quota >> period && quota != "max")
    return std::atof(quota.c_str()) / std::atof(period.c_str());
  std::ifstream q("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), p("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  double quota_us = 0, period_us = 0;
  if (q >> quota_us && p >> period_us && quota_us > 0 && period_us > 0) return quota_us / period_us;
  return 0;
}

}  // namespace

const char* name_of(Isa isa) { return kNames[static_cast<int>(isa)]; }

Isa parse_isa(const std::string& name) {
  std::string known;
  for (int i = 0; i < 5; ++i) {
    if (name == kNames[i]) return static_cast<Isa>(i);
    known += (i ? ", " : "") + std::string(kNames[i]);
  }
  throw InputError("unknown instruction set '" + name + "'; known: " + known);
}

Isa detected_isa() {
#if defined(__x86_64__)
  static const Isa found = [] {
    __builtin_cpu_init();
    if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")))
      return Isa::baseline;
    if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
          __builtin_cpu_supports("avx512cd")))
      return Isa::avx2;
    if (!__builtin_cpu_supports("avx512vnni")) return Isa::avx512;
    return __builtin_cpu_supports("avx512bf16") ? Isa::avx512bf16 : Isa::avx512vnni;
  }();
  return found;
#else
  return Isa::baseline;
#endif
}

Isa active_isa() {
  const int forced = g_forced.load(std::memory_order_relaxed);
  if (forced >= 0) return static_cast<Isa>(forced);
  static const Isa chosen = from_environment();
  return chosen;
}

void force_isa(Isa isa) {
  check(isa <= detected_isa(), name_of(isa), ": this CPU lacks it (best here: ", name_of(detected_isa()), ")");
  g_forced = static_cast<int>(isa);
}

const Caches& caches() {
  static const Caches found = [] {
    Caches c;
    const auto ask = [](int what, long fallback) {
      const long v = sysconf(what);
      return v > 0 ? v : fallback;
    };
    c.l1 = ask(_SC_LEVEL1_DCACHE_SIZE, c.l1);
    c.l2 = ask(_SC_LEVEL2_CACHE_SIZE, c.l2);
    c.l3 = ask(_SC_LEVEL3_CACHE_SIZE, c.l3);
    return c;
  }();
  return found;
}

int usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  if (const double quota = cgroup_cores(); quota > 0) cores = std::min(cores, static_cast<int>(std::ceil(quota)));
  return cores < 1 ? 1 : cores;
}

}  // namespace fi
