// SPDX-License-Identifier: Apache-2.0
// Straight-line programs over tensors that broadcast to one shape:  y_j[i] = value_j(x_0[i], x_1[i], ...).
// A tile of the output is computed at a time: every operation is one loop over a tile in L1, inputs are read once from
// memory and outputs written once. No operation looks at a neighbour, and a lane's bits do not depend on its position,
// so neither tiles nor parts change a bit.
#pragma once
#include <cstdint>

#include "csrc/base/step.h"

namespace fi {

constexpr int kTile = 1024;  // elements: 4 KiB of float32, so that some eight tiles fit in L1
constexpr int kTileInputs = 16, kTileOutputs = 16, kTileImmediates = 32, kTileInstructions = 64, kTileSlots = 16;
constexpr int kTileRank = 12;

enum class TileOp : uint8_t {
#define FI_TILE(name, signature, cost, expression) op_##name,
#include "kernels/pointwise/tile_ops.inc"
#undef FI_TILE
  count
};

// Values are numbered: inputs, then immediates, then results of the instructions.
struct TileInstruction {
  TileOp op;
  uint8_t slot;  // result place: tile slot, or kTileSlots + j for output j
  int16_t a = -1, b = -1, c = -1;
};

struct TileProgram {
  int inputs = 0, immediates = 0, instructions = 0, outputs = 0;
  float immediate[kTileImmediates];
  TileInstruction code[kTileInstructions];
  int16_t output[kTileOutputs];  // value number
  double cost = 0;               // vector operations per vector of elements, loads and stores excluded
};

// From f16 on: converted from and to float32 at the edges of the program; stored rounded to even and saturated.
// Numbers of 4 and 2 bits lie in the low bits of a byte each.
enum class TileType : uint8_t { f32, boolean, f16, bf16, u8, s8, u4, s4, u2, s2, u16, s16, s32 };

// How one input is reached from the output's flat index.
enum class TileRead : uint8_t {
  dense,     // same layout as the output
  scalar,    // one element for all
  periodic,  // depends on the innermost index alone; flat walk: laid out once, as tiles hold whole rows
  strided,   // general
};

// Two walks. Rows (inner > kTile / 2, or rank 1): a tile lies within one innermost row, so each operand is a pointer or
// a splat. Flat: a tile is `tile` consecutive elements, whole rows of inner elements; strided operands are laid out.
struct PointwiseParams {
  const TileProgram* program;
  int32_t rank;
  int32_t tile;
  bool flat;
  TileType in_type[kTileInputs], out_type[kTileOutputs];
  TileRead read[kTileInputs];
  int64_t extent[kTileRank];  // collapsed; outermost first
};
// Followed by the element strides of each input: int64_t strides[inputs][kTileRank].
template <int kInputs>
struct PointwiseParamsFor : PointwiseParams {
  int64_t strides[kInputs][kTileRank];
};
static inline __attribute__((always_inline)) const int64_t* strides_of_input(const PointwiseParams& p, int i) {
  return reinterpret_cast<const int64_t*>(&p + 1) + i * kTileRank;
}

static inline __attribute__((always_inline)) int64_t count_tiles(const PointwiseParams& p) {
  int64_t rows = 1;
  for (int d = 0; d < p.rank - 1; ++d) rows *= p.extent[d];
  const int64_t inner = p.extent[p.rank - 1];
  return p.flat ? (rows * inner + p.tile - 1) / p.tile : rows * ((inner + p.tile - 1) / p.tile);
}

}  // namespace fi
