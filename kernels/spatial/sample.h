// SPDX-License-Identifier: Apache-2.0
// GridSample and AffineGrid in plain C++, float32.
#pragma once
#include "csrc/base/step.h"

namespace fi {

enum class SampleMode : int32_t { nearest, linear, cubic };
enum class SamplePadding : int32_t { zeros, border, reflection };

// Y[n, c, o...] = X[n, c] interpolated at grid[n, o..., :], whose last axis holds (x, y, z) in [-1, 1].
struct GridSample {
  int axes = 2;  // spatial axes, 1 to 3
  int64_t batch = 0, channels = 0, in[3] = {1, 1, 1}, out_pixels = 0;
  SampleMode mode = SampleMode::linear;
  SamplePadding padding = SamplePadding::zeros;
  bool align_corners = false;
};
// args: X [N, C, in...], grid [N, out..., axes], Y [N, C, out...].
Status grid_sample_step(const void* params, void* const* args, int part, int parts);

// grid[n, o..., i] = sum over j  theta[n, i, j] · (position of o, 1)[j], positions from -1 to 1, x first.
struct AffineGrid {
  int axes = 2;
  int64_t batch = 0, size[3] = {1, 1, 1};
  bool align_corners = false;
};
// args: theta [N, axes, axes + 1], grid.
Status affine_grid_step(const void* params, void* const* args, int part, int parts);

}  // namespace fi
