// SPDX-License-Identifier: Apache-2.0
// The building block of the engine: batch-reduce matrix product with a fused epilogue.
//
//   C[m, n] = epilogue( sum over t < taps, k < K of  A_t[m, k] * B_t[k, n] )
//
// Each C[m, n] is one chain of (fused where the instruction set has it) multiply-adds from 0, with t ascending and
// within it k ascending. Tile shapes, row counts, blocking and threads never change that chain, so they never change a
// bit.
#pragma once
#include <cstddef>
#include <cstdint>

#include "csrc/base/cpu.h"
#include "csrc/base/step.h"
#include "kernels/gemm/epilogue.h"

namespace fi {

// One call of the microkernel: any number of rows, the columns of one panel.
struct GemmTile {
  // Row r of tap t is k contiguous floats at a[t * a_tap + r] + a_offset.
  const float* const* a = nullptr;
  int64_t a_tap = 0;
  int64_t a_offset = 0;
  int64_t a_row = 0;  // run_rows only: row r of tap t is at a[t * a_tap] + r * a_row + a_offset
  // Row (t, k) of the panel is at b + (t * K + k) * ldb. Readable up to round_up(cols, 16) floats.
  const float* b = nullptr;
  int64_t ldb = 0;
  int64_t taps = 1, k = 0, rows = 0, cols = 0;  // 1 <= cols <= nr
  // Row r of C is at c_rows[r] if c_rows is set, else at c + r * ldc. The residual likewise (no residual: both null);
  // it may be C itself. The panel's first column is column 0 of all three.
  float* c = nullptr;
  int64_t ldc = 0;
  float* const* c_rows = nullptr;
  const float* residual = nullptr;
  int64_t ld_residual = 0;
  const float* const* residual_rows = nullptr;
  const float* bias = nullptr;  // [cols] or null
  int64_t ahead = 0;            // bytes right behind B that are needed next: fetched into L2 on the way
  bool accumulate = false;      // continue the chains from the partial sums that C holds (K cut into several calls)
  bool partial = false;         // leave the sums in C, without epilogue
  Epilogue epilogue;
};

// A variant of the microkernel (a row of kernels.inc).
struct GemmF32 {
  const char* name;
  Isa isa;
  int mr, nr;  // rows: multiples of mr are computed at full speed; nr: columns of a panel
  void (*run)(const GemmTile&);
  void (*run_rows)(const GemmTile&);  // rows of A at one distance, a_row; the same bits
  // Packs one panel of one tap: out[k * width + n] = b[k * stride_k + n * stride_n] for n < cols, 0 for cols <= n <
  // width.
  void (*pack_panel)(const float* b, int64_t stride_k, int64_t stride_n, int64_t k, int64_t cols, int64_t width,
                     float* out);
  // y[w * channels + c] = x[c * plane + w] for w < count.
  void (*interleave)(const float* x, int64_t plane, int64_t channels, int64_t count, float* y);
};
// The best variant of an instruction set. Lives for the whole process.
const GemmF32& gemm_f32(Isa);

// ------------------------------------------------------------------------------------------------------- packed B
// [ceil(N / nr)][taps * K][width]: every panel is nr wide, but the last only round_up(N % nr, 16) (if N % nr != 0), so
// that narrow N wastes neither memory nor bandwidth. Columns beyond N are 0.
struct GemmPanels {
  int64_t taps, k, n;
  int nr;
};
static inline int64_t panel_count(const GemmPanels& p) { return (p.n + p.nr - 1) / p.nr; }
static inline int64_t panel_cols(const GemmPanels& p, int64_t i) {
  return p.n - i * p.nr < p.nr ? p.n - i * p.nr : p.nr;
}
static inline int64_t panel_width(const GemmPanels& p, int64_t i) { return (panel_cols(p, i) + 15) / 16 * 16; }
static inline int64_t panel_offset(const GemmPanels& p, int64_t i) { return i * p.nr * p.taps * p.k; }  // in floats
static inline int64_t packed_floats(const GemmPanels& p) { return p.taps * p.k * ((p.n + 15) / 16 * 16); }

// Packs B with B_t[k, n] = b[t * stride_t + k * stride_k + n * stride_n].
void gemm_f32_pack(const GemmF32&, const GemmPanels&, const float* b, int64_t stride_t, int64_t stride_k,
                   int64_t stride_n, float* packed);
// The inverse, for any nr.
void gemm_f32_unpack(const GemmPanels&, const float* packed, float* b, int64_t stride_t, int64_t stride_k,
                     int64_t stride_n);

// ---------------------------------------------------------------------------------------------------------- the step
constexpr int kGemmBatchRank = 10;

enum class GemmB : int32_t {
  packed,  // as gemm_f32_pack leaves it, taps = 1
  dense,   // B[k, n] = b[k * b_k + n * b_n]; panels are packed into scratch on the way where that pays
};

// Y[i] = epilogue(A[i] * B[i] + bias + R[i]) for i in a batch of any rank (row-major). Y and R are dense [batch..., m,
// n].
struct GemmStep {
  const GemmF32* kernel = nullptr;
  GemmB b_form = GemmB::packed;
  bool split_rows = false;  // which way parts are cut: rows, or columns (then every core reads only its share of B)
  int64_t m = 0, n = 0, k = 0;
  int64_t lda = 0;                   // a row of A is k contiguous floats
  int64_t ldc = 0, ld_residual = 0;  // 0: n; other only with batch_rank = 0
  int64_t b_k = 0, b_n = 0;          // strides of a dense B
  int batch_rank = 0;
  int64_t batch[kGemmBatchRank] = {}, a_batch[kGemmBatchRank] = {}, b_batch[kGemmBatchRank] = {};  // strides in floats
  Epilogue epilogue;
};
// Fills in split_rows, and says what the work is worth to PlanContext::parts_for.
double gemm_f32_prepare(GemmStep&);
// Floats of scratch that `parts` parts need.
int64_t gemm_f32_scratch(const GemmStep&, int parts);
// args: A, B, bias [n] or null, R or null, Y, scratch or null. Y may be R.
Status gemm_f32_step(const void* params, void* const* args, int part, int parts);

}  // namespace fi
