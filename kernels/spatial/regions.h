// SPDX-License-Identifier: Apache-2.0
// RoiAlign, MaxRoiPool and MaxUnpool in plain C++, float32, [N, C, H, W].
#pragma once
#include "csrc/base/step.h"

namespace fi {

struct RoiAlign {
  int64_t batch = 0, channels = 0, height = 0, width = 0, rois = 0, out_h = 1, out_w = 1;
  float scale = 1;
  int64_t sampling = 0;  // points per bin and axis; 0: as many as the bin has pixels
  bool half_pixel = true, max = false;
};
// args: X, rois [rois, 4] (x1, y1, x2, y2), batch indices s64 [rois], Y [rois, C, out_h, out_w].
Status roi_align_step(const void* params, void* const* args, int part, int parts);

struct MaxRoiPool {
  int64_t batch = 0, channels = 0, height = 0, width = 0, rois = 0, out_h = 1, out_w = 1;
  float scale = 1;
};
// args: X, rois [rois, 5] (image, x1, y1, x2, y2), Y.
Status max_roi_pool_step(const void* params, void* const* args, int part, int parts);

// Y[I[e]] = X[e] into zeros, where I counts in a tensor of shape `inferred` that lies at the origin of Y.
struct MaxUnpool {
  int rank = 4;
  int64_t elements = 0, inferred[12] = {}, out[12] = {};
};
// args: X, I s64, Y. One part.
Status max_unpool_step(const void* params, void* const* args, int part, int parts);

}  // namespace fi
