// SPDX-License-Identifier: Apache-2.0
// 3x3 stride-1 convolution by F(m x m, 3x3), channels last:
//   Y = A^T [ (G W G^T) ⊙ (B^T X B) ] A   per m x m output tile, summed over input channels,
// with B, G, A from Cook-Toom's construction on the points 0, ±p_i, ∞ (Lavin and Gray 2016). The points are exact in
// binary and were chosen by measured error: m = 4 takes ±3/4, ±3/2, whose rms error (8e-7 at 128 channels,
// σ-normalised) is 2.6 times below that of the usual ±1, ±2; m = 6 takes ±1/2, ±1, ±2 (3e-6; the best of 455 triples
// has 2.98e-6, this one 3.09e-6). A direct float32 sum has 2e-7.
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
  // pixels[i * n + j]: the channels of input pixel (i, j) of the tile (zeros in the padding). v[p * plane + c], c <
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
  int64_t batch, in_h, in_w, channels, out_h, out_w, out_channels, pad_top, pad_left, dilation;
  // Floats from one pixel to the next.
  int64_t x_pixel, y_pixel, residual_pixel;
  bool far_x, far_y;                            // larger than L2: the next tile is fetched ahead
  bool has_bias, has_residual, split_channels;  // split_channels: parts share the tiles and divide the output channels
  Epilogue epilogue;
  const WinogradF32* kernel;
  const GemmF32* gemm;
  int64_t group;  // tiles transformed at a time, see winograd_group
  // Sizes in floats, filled by winograd_prepare.
  int64_t v_row, v_plane, block_row, block_plane, scratch_part;
};
// Fills the derived sizes; returns the scratch bytes that `parts` parts need.
size_t winograd_prepare(WinogradProblem&, int parts);
// params: WinogradProblem. args: X [N,H,W,C], U packed, bias or null, residual or null, Y, scratch.
Status winograd_step(const void* params, void* const* args, int part, int parts);

// A dilated kernel is dilation² plain ones, each on the pixels of one residue modulo the dilation (the polyphase form):
// tiles belong to one residue, and their pixels are that far apart.
//
// The m for a map of h x w output pixels, which with the channels is all it may depend on; 0: too few tiles for either.
int winograd_size(int64_t h, int64_t w, int64_t channels, int64_t out_channels, int64_t dilation);
// U from W [O, I, 3, 3]: panels of the GEMM family with (m+2)² taps.
GemmPanels winograd_panels(int m, const GemmF32&, int64_t channels, int64_t out_channels);
void winograd_pack(int m, const GemmF32&, const float* weights, int64_t channels, int64_t out_channels, float* packed);

}  // namespace fi
