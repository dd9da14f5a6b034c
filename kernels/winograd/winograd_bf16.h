// SPDX-License-Identifier: Apache-2.0
// 3x3 stride-1 convolution by F(2x2, 3x3) with bfloat16 products and float32 sums, channels last:
//   Y = A^T [ (G W G^T) ⊙ (B^T X B) ] A   per 2x2 output tile, summed over input channels,
// on the points 0, ±1, ∞: all transforms are additions, done in float32; B^T X B and G W G^T are rounded to bfloat16.
// Error against float64, σ-normalised rms: 4e-3, where a direct bfloat16 sum has 2.5e-3 (operands' rounding alone) and
// F(4x4) would have 1.2e-2.
//
// Groups of tiles as in winograd.h; each output's chain is fixed by its own tile.
#pragma once
#include "kernels/gemm/gemm_bf16.h"

namespace fi {

constexpr int kWinogradBF16Points = 16;

// Vector work of one instruction set (a row of kernels_bf16.inc).
struct WinogradBF16 {
  const char* name;
  Isa isa;
  // pixels[i * 4 + j]: the channels of input pixel (i, j) of the tile (zeros in the padding); float32 or bfloat16.
  // v[p * plane + c], c < channels; whole vectors are written, with zeros beyond.
  void (*input)(const void* const* pixels, bool bf16, int64_t channels, uint16_t* v, int64_t plane);
  // products[p * plane + c]; rows[i * 2 + j]: where output pixel (i, j) goes, or null if outside; residual likewise or
  // null as a whole.
  void (*output)(const float* products, int64_t plane, int64_t channels, const float* bias, const Epilogue&,
                 void* const* rows, bool y_bf16, const void* const* residual, bool residual_bf16);
};
const WinogradBF16& winograd_bf16(Isa);

struct WinogradBF16Problem {
  int64_t batch, in_h, in_w, channels, out_h, out_w, out_channels, pad_top, pad_left;
  bool x_bf16, y_bf16, residual_bf16;
  Epilogue epilogue;
  const WinogradBF16* kernel;
  const GemmBF16* gemm;
  // Filled by winograd_bf16_prepare.
  bool split_channels;                                // parts share the tiles and divide the output channels
  int64_t group;                                      // tiles transformed at a time
  int64_t v_row, v_plane, block_plane, scratch_part;  // elements of V, floats of a block, bytes
};
// Fills the derived sizes; returns the scratch bytes that `parts` parts need.
size_t winograd_bf16_prepare(WinogradBF16Problem&, int parts);
// params: WinogradBF16Problem. args: X [N,H,W,C], U packed, bias or null, residual or null, Y, scratch.
Status winograd_bf16_step(const void* params, void* const* args, int part, int parts);

// U from W [O, I, 3, 3]: panels of gemm_bf16.h with 16 taps.
BF16Panels winograd_bf16_panels(int64_t channels, int64_t out_channels);
void winograd_bf16_pack(const float* weights, int64_t channels, int64_t out_channels, uint16_t* packed);

}  // namespace fi
