// SPDX-License-Identifier: Apache-2.0
// Averages of bytes: exact sums, then
//   Y = saturate(round_half_even(sum of (X - zx) / count * x_scale / y_scale) + zy)
#pragma once
#include "kernels/pool/pool.h"

namespace fi {

struct QuantizedAverage {
  Geometry g;  // the whole image for the global form
  int64_t batch = 0, channels = 0;
  bool channels_last = false, count_include_pad = false, is_signed = false;
};
// args: X, x_scale, zx or null, y_scale, zy or null, Y. Zero points are of X's type.
Status quantized_average_step(const void* params, void* const* args, int part, int parts);

}  // namespace fi
