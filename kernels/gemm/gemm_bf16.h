// SPDX-License-Identifier: Apache-2.0
// The batch-reduce product on bfloat16 operands with float32 sums:
//
//   C[m, n] = epilogue( sum over t < taps, k < K of  A_t[m, k] * B_t[k, n] ),  A and B bfloat16
//
// Each C[m, n] is one chain over pairs of k, t ascending and within it k ascending, from 0. How the two products of a
// pair are added (and that vdpbf16ps takes denormals as 0) belongs to the instruction set: bits differ between sets by
// a few float32 roundings, and never within one. A may be float32 in memory: it is rounded to nearest even on the way.
#pragma once
#include <cstring>

#include "csrc/base/cpu.h"
#include "csrc/base/step.h"
#include "kernels/gemm/epilogue.h"

namespace fi {

// Columns of a panel, the same on every instruction set: packed weights are interchangeable.
constexpr int kBF16Panel = 64;

// One call of the microkernel: any number of rows, columns of one panel.
struct GemmBF16Tile {
  // Row r of tap t is k contiguous bfloat16 at a[t * a_tap + r] + a_offset; nothing beyond is read.
  const uint16_t* const* a = nullptr;
  int64_t a_tap = 0;
  int64_t a_offset = 0;
  // The pair (k, k + 1) of column n of tap t is at b + ((t * pairs + k / 2) * width + n) * 2; 0 beyond an odd k.
  const uint16_t* b = nullptr;
  int64_t width = 0;
  int64_t taps = 1, k = 0, rows = 0, cols = 0;  // 1 <= cols <= kBF16Panel
  // C and the residual are float32, or bfloat16 (rounded to nearest even, after everything). Row r of C is at c_rows[r]
  // if c_rows is set, else at c + r * ldc elements; of the residual at residual + r * ld_residual. The residual may be
  // C itself if they have one type.
  void* c = nullptr;
  int64_t ldc = 0;
  void* const* c_rows = nullptr;
  const void* residual = nullptr;
  int64_t ld_residual = 0;
  bool c_bf16 = false, residual_bf16 = false;
  const float* bias = nullptr;  // [cols] or null
  int64_t ahead = 0;            // bytes right behind B that are needed next: fetched into L2 on the way
  Epilogue epilogue;
};

// A variant of the microkernel (a row of kernels_bf16.inc).
struct GemmBF16 {
  const char* name;
  Isa isa;
  int mr;  // rows: multiples of mr are computed at full speed
  void (*run)(const GemmBF16Tile&);
  // y[i] = x[i] rounded to nearest even, i < n.
  void (*round)(const float* x, uint16_t* y, int64_t n);
};
// The best variant of an instruction set. Lives for the whole process.
const GemmBF16& gemm_bf16(Isa);

// ------------------------------------------------------------------------------------------------------- packed B
// [ceil(N / 64)][taps][ceil(K / 2)][width][2], width as in GemmPanels: 64, in the last panel round_up(N % 64, 16).
struct BF16Panels {
  int64_t taps, k, n;
  int64_t pairs() const { return (k + 1) / 2; }
  int64_t count() const { return (n + kBF16Panel - 1) / kBF16Panel; }
  int64_t cols(int64_t i) const { return n - i * kBF16Panel < kBF16Panel ? n - i * kBF16Panel : kBF16Panel; }
  int64_t width(int64_t i) const { return (cols(i) + 15) / 16 * 16; }
  int64_t offset(int64_t i) const { return i * kBF16Panel * taps * pairs() * 2; }  // in elements, as all here
  int64_t elements() const { return taps * pairs() * 2 * ((n + 15) / 16 * 16); }
};

// Rounds and packs B with B_t[k, n] = b[t * stride_t + k * stride_k + n * stride_n]; with `order`, tap t of the packed
// form is number order[t] of b.
void gemm_bf16_pack(const BF16Panels&, const float* b, int64_t stride_t, int64_t stride_k, int64_t stride_n,
                    uint16_t* packed, const int64_t* order = nullptr);
// Back to float32: exact, though what was rounded away stays away.
void gemm_bf16_unpack(const BF16Panels&, const uint16_t* packed, float* b, int64_t stride_t, int64_t stride_k,
                      int64_t stride_n, const int64_t* order = nullptr);

// ---------------------------------------------------------------------------------------------------------- the steps
// Y = epilogue(A * B + bias + R): A [m, k] with rows of lda elements, Y and R [m, n] dense.
struct GemmBF16Step {
  const GemmBF16* kernel = nullptr;
  bool split_rows = false;  // which way parts are cut: rows, or columns (then every core reads only its share of B)
  bool a_bf16 = false, y_bf16 = false, residual_bf16 = false;
  int64_t m = 0, n = 0, k = 0, lda = 0;
  Epilogue epilogue;
};
// Fills in split_rows, and says what the work is worth to PlanContext::parts_for.
double gemm_bf16_prepare(GemmBF16Step&);
size_t gemm_bf16_scratch(const GemmBF16Step&, int parts);  // bytes
// args: A, B packed, bias [n] or null, R or null, Y, scratch or null. Y may be R if they have one type.
Status gemm_bf16_step(const void* params, void* const* args, int part, int parts);

// Y[i] = X[i] rounded from float32 to bfloat16, i < n. args: X, Y.
struct RoundBF16 {
  const GemmBF16* kernel;
  int64_t n;
};
Status round_bf16_step(const void* params, void* const* args, int part, int parts);

}  // namespace fi
