// SPDX-License-Identifier: Apache-2.0
// 3x3 stride-1 convolution by F(m x m, 3x3), channels last:
//   Y = A^T [ (G W G^T) ⊙ (B^T X B) ] A   per m x m output tile, summed over input channels,
// with B, G, A from Cook-Toom's construction on the points 0, ±p_i, ∞ (Lavin and Gray 2016). m = 4 uses ±3/4, ±3/2,
// exact in binary, whose rounding error is 2.6 times below that of the usual ±1, ±2 (rms 8e-7 against 2.1e-6 at 128
// channels, σ-normalised; a direct float32 sum has 2e-7).
//
// A group of tiles is transformed into V[p][tile][C + pad], p over the (m+2)² points; then, panel by panel of output
// channels, all products V[p] · U[p] go through the GEMM microkernel into a block that stays in cache, and are
// transformed back with bias, residual and activation. Each output's chain is fixed by its own tile: neighbours, batch,
// groups and threads never change a bit.
#pragma once
#include "kernels/gemm/gemm.h"

namespace fi {

// Vector work of one instruction set and one m. n = m + 2.
struct WinogradF32 {
  const char* name;
  Isa isa;
  int m;
  // pixels[i * n + j]: the channels of input pixel (i, j) of the tile, or null in the padding. v[p * plane + c], c <
  // channels.
  void (*input)(const float* const* pixels, int64_t channels, float* v, int64_t plane);
  // products[p * plane + c]; rows[i * m + j]: where output pixel (i, j) goes, or null if outside; residual likewise or
  // null.
  void (*output)(const float* products, int64_t plane, int64_t channels, const float* bias, const Epilogue&,
                 float* const* rows, const float* const* residual);
};
// nullptr: the instruction set has no variant for this m.
const WinogradF32* winograd_f32(Isa, int m);

struct WinogradProblem {
  int64_t batch, in_h, in_w, channels, out_h, out_w, out_channels, pad_top, pad_left;
  bool has_bias, has_residual, split_channels;  // split_channels: parts share the tiles and divide the output channels
  Epilogue epilogue;
  const WinogradF32* kernel;
  const GemmF32* gemm;
  int64_t group;  // tiles transformed at a time, see winograd_group
  // Sizes in floats, filled by winograd_prepare.
  int64_t v_row, v_plane, block_plane, scratch_part;
};
// Fills the derived sizes; returns the scratch bytes that `parts` parts need.
size_t winograd_prepare(WinogradProblem&, int parts);
// params: WinogradProblem. args: X [N,H,W,C], U packed, bias or null, residual or null, Y, scratch.
Status winograd_step(const void* params, void* const* args, int part, int parts);

// U from W [O, I, 3, 3]: panels of the GEMM family with (m+2)² taps.
GemmPanels winograd_panels(int m, const GemmF32&, int64_t channels, int64_t out_channels);
void winograd_pack(int m, const GemmF32&, const float* weights, int64_t channels, int64_t out_channels, float* packed);

}  // namespace fi
