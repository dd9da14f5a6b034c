// SPDX-License-Identifier: Apache-2.0
// The integer building block: exact sums of 8-bit products in 32 bits (wrapping), with zero points and requantisation.
//
//   S[m, n] = bias[n] + sum over t, k of (A_t[m, k] - za[m]) * (B_t[k, n] - zb[n])
//
// The multiplier wants A unsigned and B signed. A signed A is read with its top bit flipped, which adds 128 to every
// value; an unsigned B is packed with 128 taken off. za and zb below are in those forms, so the differences are
// unchanged:
//   S = bias + sum A B - za (sum_k B - K zb) - zb sum_k A
// where sum_k B is packed with B, and sum_k A is needed only if B has a zero point.
#pragma once
#include <cstddef>
#include <cstdint>

#include "csrc/base/cpu.h"
#include "csrc/base/step.h"

namespace fi {

enum class QuantizedOutput : int32_t {
  s32,  // S
  f32,  // S * row_scale[m] * column_scale[n] + float_bias[n]
  u8,   // S * row_scale[m] * column_scale[n], as Requantize says
  s8,
};
constexpr bool is_byte(QuantizedOutput o) { return o == QuantizedOutput::u8 || o == QuantizedOutput::s8; }
constexpr size_t size_of(QuantizedOutput o) { return is_byte(o) ? 1 : 4; }

// How bytes are made of a real v. quantize(v; zero, lo, hi) = clamp(round_half_even(v) + zero, lo, hi), NaN gives lo.
//   no residual:          Y = quantize(v; zero, lo, hi)
//   residual R, inner:    C = quantize(v; c_zero, c_lo, c_hi)
//                         Y = quantize((C - c_zero) * c_factor + (R - r_zero) * r_factor; zero, lo, hi)
//   residual R, not inner:  Y = quantize(v + (R - r_zero) * r_factor; zero, lo, hi)
// A relu or clip before a quantisation is part of its lo and hi.
struct Requantize {
  int32_t zero = 0, lo = 0, hi = 255;
  bool inner = false, signed_residual = false;
  int32_t c_zero = 0, c_lo = 0, c_hi = 255, r_zero = 0;
  float c_factor = 1, r_factor = 1;
};
inline Requantize requantize(QuantizedOutput o, int32_t zero) {
  Requantize q;
  q.zero = zero;
  q.lo = o == QuantizedOutput::s8 ? -128 : 0;
  q.hi = o == QuantizedOutput::s8 ? 127 : 255;
  return q;
}

// One call of the microkernel: any number of rows, the columns of one panel.
struct GemmU8S8Tile {
  const uint8_t* const* a = nullptr;  // row r of tap t: k contiguous bytes at a[t * a_tap + r] + a_offset
  int64_t a_tap = 0, a_offset = 0;
  bool flip_a = false;        // A is signed
  bool over_read = false;     // rows may be read up to a multiple of four bytes
  const int8_t* b = nullptr;  // [taps][ceil(k / 4)][width][4]
  int64_t width = 0;
  int64_t taps = 1, k = 0, rows = 0, cols = 0;
  const int32_t* a_zero = nullptr;  // za of row r: a_zero[r * a_zero_step]
  int64_t a_zero_step = 0;
  const int32_t* column_sum = nullptr;  // [cols] sum over taps and k of B
  const int32_t* b_zero = nullptr;      // [cols], or null: all 0
  const int32_t* row_sum = nullptr;     // [rows] sum over taps and k of A (flipped if flip_a); only with b_zero
  const int32_t* bias = nullptr;        // [cols] or null
  QuantizedOutput output = QuantizedOutput::s32;
  void* c = nullptr;
  int64_t ldc = 0;                   // in elements
  const float* row_scale = nullptr;  // of row r: row_scale[r * row_scale_step]
  int64_t row_scale_step = 0;
  const float* column_scale = nullptr;  // [cols]
  const float* float_bias = nullptr;    // [cols] or null
  Requantize q;                         // of bytes
  const uint8_t* residual = nullptr;    // rows of ldc bytes like C, or null; only with bytes
};

struct GemmU8S8 {
  const char* name;
  Isa isa;
  int mr, nr;
  void (*run)(const GemmU8S8Tile&);
};
const GemmU8S8& gemm_u8s8(Isa);

// ------------------------------------------------------------------------------------------------------- packed B
// [column sums: round_up(N, 16) int32][panels][taps][ceil(K / 4)][width][4], panels and widths as in gemm.h; what lies
// beyond N and K is 0. The size does not depend on nr.
struct U8S8Panels {
  int64_t taps, k, n;
  int nr;
};
static inline int64_t groups_of_4(int64_t k) { return (k + 3) / 4; }
static inline int64_t panel_count(const U8S8Panels& p) { return (p.n + p.nr - 1) / p.nr; }
static inline int64_t panel_cols(const U8S8Panels& p, int64_t i) {
  return p.n - i * p.nr < p.nr ? p.n - i * p.nr : p.nr;
}
static inline int64_t panel_width(const U8S8Panels& p, int64_t i) { return (panel_cols(p, i) + 15) / 16 * 16; }
static inline int64_t sums_bytes(const U8S8Panels& p) { return (p.n + 15) / 16 * 16 * 4; }
// From the start of the packed matrix, column sums included.
static inline int64_t panel_offset(const U8S8Panels& p, int64_t i) {
  return sums_bytes(p) + i * p.nr * p.taps * groups_of_4(p.k) * 4;
}
static inline int64_t packed_bytes(const U8S8Panels& p) {
  return sums_bytes(p) + p.taps * groups_of_4(p.k) * ((p.n + 15) / 16 * 16) * 4;
}

// Packs panels [begin, end) of B_t[k, n] = b[t * stride_t + k * stride_k + n * stride_n], of unsigned bytes if flip_b.
void gemm_u8s8_pack(const U8S8Panels&, const void* b, bool flip_b, int64_t stride_t, int64_t stride_k, int64_t stride_n,
                    void* packed, int64_t begin, int64_t end);
// The inverse, for any nr.
void gemm_u8s8_unpack(const U8S8Panels&, const void* packed, bool flip_b, int64_t stride_t, int64_t stride_k,
                      int64_t stride_n, void* b);
// Sum of k bytes, with the top bits flipped if `flip`.
int32_t sum_bytes(const uint8_t* a, int64_t k, bool flip);

// ---------------------------------------------------------------------------------------------------------- steps
constexpr int kU8S8BatchRank = 10;

struct GemmU8S8Step {
  const GemmU8S8* kernel = nullptr;
  bool flip_a = false;
  bool by_rows = false;  // za and row_scale are per row of a matrix, not one number
  int64_t m = 0, n = 0, k = 0;
  int batch_rank = 0;
  int64_t batch[kU8S8BatchRank] = {}, a_batch[kU8S8BatchRank] = {}, b_batch[kU8S8BatchRank] = {};  // strides in bytes
  QuantizedOutput output = QuantizedOutput::s32;
  Requantize q;
};
// args: A [batch..., m, k], packed B, za (s32), zb (s32 [n] or null), bias (s32 [n] or null), row_scale, column_scale
// [n], float_bias ([n] or null), Y, residual (Y's shape, or null). The scales are read for outputs other than s32.
Status gemm_u8s8_step(const void* params, void* const* args, int part, int parts);

// Packs a B that is not constant: args: B, packed.
struct PackU8S8Step {
  U8S8Panels panels{};
  bool flip_b = false;
  int64_t matrices = 0, stride_k = 0, stride_n = 0;
};
Status pack_u8s8_step(const void* params, void* const* args, int part, int parts);

}  // namespace fi
