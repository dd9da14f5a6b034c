// SPDX-License-Identifier: Apache-2.0
// What this machine can do at most, measured: the denominators of every "share of peak".
//   fma:  per part, `rounds` rounds of x ← x·m + a on registers only, 2 flops each and lane;
//   read: per part, the sum over its share of a buffer, `rounds` times.
#pragma once
#include <cstdint>

#include "csrc/base/cpu.h"
#include "csrc/base/step.h"

namespace fi {

struct PeakParams {
  int64_t rounds;  // per part
  int64_t floats;  // read: length of the buffer
};

// args: fma {out}, read {buffer, out}; out has one float per part, kOutStride apart (a cache line each).
constexpr int kPeakOutStride = 16;

struct PeakKernel {
  const char* name;
  Isa isa;
  int64_t flops_per_round;
  StepFn fma, read;
};

struct Peak {
  double gflops;    // float32, all threads together
  double read_gbs;  // DRAM read, GB/s (1e9), all threads together
  // Sums of products of bfloat16 pairs and of u8·s8 quadruples; 0: the set has no instruction for them.
  double bf16_gflops, int8_gops;
  const char* kernel;
};
// Best of several runs of about 5 ms each; takes about 0.2 s. Measures the set in force (active_isa).
Peak measure_peak(int threads);

// Bytes of a buffer of this size read per second, all threads together, when it was read before: at which cache's speed
// depends on the size. Takes about 20 ms.
double measure_read(size_t bytes, int threads);

}  // namespace fi
