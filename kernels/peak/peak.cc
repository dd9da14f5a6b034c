// SPDX-License-Identifier: Apache-2.0
#include "kernels/peak/peak.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <vector>

#include "csrc/base/pool.h"

namespace fi {

#define FI_KERNEL(isa, symbol)                               \
  namespace isa {                                            \
  Status symbol##_fma(const void*, void* const*, int, int);  \
  Status symbol##_read(const void*, void* const*, int, int); \
  int64_t symbol##_flops();                                  \
  }
#include "kernels/peak/kernels.inc"
#undef FI_KERNEL
#define FI_KERNEL(isa, symbol, type)                        \
  namespace isa {                                           \
  Status symbol##_fma(const void*, void* const*, int, int); \
  int64_t symbol##_flops();                                 \
  }
#include "kernels/peak/kernels_dot.inc"
#undef FI_KERNEL

namespace {

enum class Narrow { bf16, int8 };

const PeakKernel& peak_kernel(Isa isa) {
  static const PeakKernel rows[] = {
#define FI_KERNEL(isa, symbol) \
  {#symbol "_" #isa, Isa::isa, isa::symbol##_flops(), &isa::symbol##_fma, &isa::symbol##_read},
#include "kernels/peak/kernels.inc"
#undef FI_KERNEL
  };
  const PeakKernel* row = rows;
  while (row->isa > isa) ++row;  // the last row is the baseline
  return *row;
}

double seconds_of(StepFn fn, const PeakParams& params, void* const* args, int threads) {
  const auto start = std::chrono::steady_clock::now();
  run_parts(fn, &params, args, threads, threads);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The least of several runs: other load on the machine only ever adds time.
double best_seconds(StepFn fn, const PeakParams& params, void* const* args, int threads, int runs) {
  double best = seconds_of(fn, params, args, threads);
  for (int i = 1; i < runs; ++i) best = std::min(best, seconds_of(fn, params, args, threads));
  return best;
}

// 10^9 operations per second of all threads together.
double rate(StepFn fn, int64_t flops_per_round, int threads) {
  std::vector<float> out(static_cast<size_t>(threads) * kPeakOutStride);
  PeakParams params{1 << 14, 0};
  void* args[] = {out.data()};
  // Runs of 5 ms: long against waking a thread, short enough to fall between two interruptions.
  while (params.rounds < (int64_t{1} << 32) && seconds_of(fn, params, args, threads) < 5e-3) params.rounds *= 2;
  const double seconds = best_seconds(fn, params, args, threads, 12);
  return static_cast<double>(flops_per_round) * static_cast<double>(params.rounds) * threads / seconds * 1e-9;
}

double narrow_rate(Narrow type, int threads) {
#define FI_KERNEL(isa, symbol, of) \
  if (type == Narrow::of && Isa::isa <= active_isa()) return rate(&isa::symbol##_fma, isa::symbol##_flops(), threads);
#include "kernels/peak/kernels_dot.inc"
#undef FI_KERNEL
  return 0;
}

}  // namespace

double measure_read(size_t bytes, int threads) {
  // Below 4 KiB a part the loop's start would be measured.
  const int64_t floats = std::max<int64_t>(static_cast<int64_t>(bytes / 4), int64_t{1024} * threads);
  std::vector<float> out(static_cast<size_t>(threads) * kPeakOutStride);
  const std::unique_ptr<float[]> buffer(new float[static_cast<size_t>(floats)]);
  std::fill_n(buffer.get(), floats, 1.f);  // touches every page: an untouched one is the shared zero page
  PeakParams params{1, floats};
  void* args[] = {buffer.get(), out.data()};
  const StepFn read = peak_kernel(active_isa()).read;
  while (params.rounds < (int64_t{1} << 24) && seconds_of(read, params, args, threads) < 1e-3) params.rounds *= 2;
  const double seconds = best_seconds(read, params, args, threads, 6);
  return static_cast<double>(floats) * 4 * static_cast<double>(params.rounds) / seconds;
}

Peak measure_peak(int threads) {
  const PeakKernel& kernel = peak_kernel(active_isa());
  // Four times the last-level cache, at least 128 MiB, at most 512 MiB.
  const auto bytes = std::clamp<size_t>(4 * static_cast<size_t>(caches().l3), 128 << 20, 512 << 20);
  return {rate(kernel.fma, kernel.flops_per_round, threads), measure_read(bytes, threads) * 1e-9,
          narrow_rate(Narrow::bf16, threads), narrow_rate(Narrow::int8, threads), kernel.name};
}

}  // namespace fi
