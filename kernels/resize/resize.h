// SPDX-License-Identifier: Apache-2.0
// Resizing along one or two neighbouring axes of [outer, a, b, inner], each output position a weighted sum of taps:
//
//   Y[o, i, j, c] = sum over k  wb[j, k] · ( sum over l  wa[i, l] · X[o, ia[i, l], ib[j, k], c] )
//
// The taps of an axis are a table, filled by resize_table_step from the attributes of ONNX's Resize (opset 19):
//   int32 index[out][taps], then float weight[out][taps], then uint8 outside[out].
// A position that is `outside` (tf_crop_and_resize) gets the extrapolation value.
#pragma once
#include "csrc/base/cpu.h"
#include "csrc/base/step.h"

namespace fi {

enum class ResizeMode : int32_t { nearest, linear, cubic };
enum class ResizeNearest : int32_t { round_prefer_floor, round_prefer_ceil, floor, ceil };
enum class ResizeCoordinates : int32_t {
  half_pixel,
  half_pixel_symmetric,
  pytorch_half_pixel,
  align_corners,
  asymmetric,
  tf_crop_and_resize,
};

struct ResizeAxis {
  ResizeMode mode = ResizeMode::nearest;
  ResizeNearest nearest = ResizeNearest::round_prefer_floor;
  ResizeCoordinates coordinates = ResizeCoordinates::half_pixel;
  bool antialias = false, exclude_outside = false;
  double cubic_a = -0.75, scale = 1, roi_begin = 0, roi_end = 1;
  int64_t in = 1, out = 1;
};
int64_t resize_taps(const ResizeAxis&);
size_t resize_table_bytes(const ResizeAxis&);
// params: ResizeAxis. args: the table.
Status resize_table_step(const void* params, void* const* args, int part, int parts);

struct ResizeTable {
  const int32_t* index;
  const float* weight;
  const uint8_t* outside;
};
static inline ResizeTable resize_table(const void* table, int64_t out, int64_t taps) {
  const auto* index = static_cast<const int32_t*>(table);
  const auto* weight = reinterpret_cast<const float*>(index + out * taps);
  return {index, weight, reinterpret_cast<const uint8_t*>(weight + out * taps)};
}

// Axis a or b has taps = 0 if it is not resized.
struct ResizeRows {
  int64_t outer = 1, inner = 1;
  int64_t a_in = 1, a_out = 1, a_taps = 0;
  int64_t b_in = 1, b_out = 1, b_taps = 0;
  float extrapolation = 0;
};
struct ResizeKernel {
  const char* name;
  StepFn run;  // params: ResizeRows. args: X, table of a, table of b, Y, scratch
};
ResizeKernel select_resize(Isa, const ResizeRows&);
size_t resize_scratch(const ResizeRows&, int parts);  // bytes
double cost_of(const ResizeRows&);

// One tap per axis, elements of any type: `unit` bytes each.
struct ResizeNearestRows {
  ResizeRows rows;
  int64_t unit = 4;
  uint8_t extrapolation[8] = {};
};
// args: X, table of a, table of b, Y.
Status resize_nearest_step(const void* params, void* const* args, int part, int parts);

}  // namespace fi
