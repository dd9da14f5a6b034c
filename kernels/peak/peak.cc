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

namespace {

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

}  // namespace

Peak measure_peak(int threads) {
  const PeakKernel& kernel = peak_kernel(active_isa());
  std::vector<float> out(static_cast<size_t>(threads) * kPeakOutStride);
  PeakParams params{1 << 14, 0};
  void* fma_args[] = {out.data()};
  // Runs of 5 ms: long against waking a thread, short enough to fall between two interruptions.
  while (params.rounds < (int64_t{1} << 32) && seconds_of(kernel.fma, params, fma_args, threads) < 5e-3)
    params.rounds *= 2;
  const double fma = best_seconds(kernel.fma, params, fma_args, threads, 12);

  // Four times the last-level cache, at least 128 MiB, at most 512 MiB.
  const int64_t bytes = std::clamp<int64_t>(4 * static_cast<int64_t>(caches().l3), 128 << 20, 512 << 20);
  params.floats = bytes / 4;
  const std::unique_ptr<float[]> buffer(new float[static_cast<size_t>(params.floats)]);
  std::fill_n(buffer.get(), params.floats, 1.f);  // touches every page: an untouched one is the shared zero page
  void* read_args[] = {buffer.get(), out.data()};
  const double read = best_seconds(kernel.read, params, read_args, threads, 6);

  const double flops = static_cast<double>(kernel.flops_per_round) * static_cast<double>(params.rounds) * threads;
  return {flops / fma * 1e-9, static_cast<double>(bytes) / read * 1e-9, kernel.name};
}

}  // namespace fi
