// SPDX-License-Identifier: Apache-2.0
#include "kernels/depthwise/depthwise.h"

namespace fi {

#define FI_KERNEL(isa)                                              \
  namespace isa {                                                   \
  void depthwise_f32_row(const DepthwiseStep&, const DepthwiseRow&); \
  }
#include "kernels/depthwise/kernels.inc"
#undef FI_KERNEL

const DepthwiseF32& depthwise_f32(Isa isa) {
  static const DepthwiseF32 rows[] = {
#define FI_KERNEL(isa) {"depthwise_f32_" #isa, Isa::isa, &isa::depthwise_f32_row},
#include "kernels/depthwise/kernels.inc"
#undef FI_KERNEL
  };
  const DepthwiseF32* row = rows;
  while (row->isa > isa) ++row;  // the last row is the baseline, which every machine has
  return *row;
}

Status depthwise_step(const void* params, void* const* args, int part, int parts) {
  const auto& q = *static_cast<const DepthwiseStep*>(params);
  const Geometry& g = q.window;
  const auto* x = static_cast<const float*>(args[0]);
  constexpr int64_t kMaxRows = 256;  // kernel depth * height; the operator takes larger ones another way
  const float* rows[kMaxRows];
  DepthwiseRow d;
  d.rows = rows;
  d.row_taps = g.kernel[0] * g.kernel[1];
  d.weights = static_cast<const float*>(args[1]);
  d.bias = static_cast<const float*>(args[2]);
  const auto* residual = static_cast<const float*>(args[3]);
  const int64_t row_floats = g.out[2] * q.channels;
  const Range share = part_of(q.batch * g.out[0] * g.out[1], part, parts);
  for (int64_t i = share.begin; i < share.end; ++i) {
    const int64_t oh = i % g.out[1], od = i / g.out[1] % g.out[0], n = i / g.out[1] / g.out[0];
    for (int64_t kd = 0, at = 0; kd < g.kernel[0]; ++kd)
      for (int64_t kh = 0; kh < g.kernel[1]; ++kh, ++at) {
        const int64_t z = od * g.stride[0] - g.pad[0] + kd * g.dilation[0];
        const int64_t y = oh * g.stride[1] - g.pad[1] + kh * g.dilation[1];
        const bool inside = z >= 0 && z < g.in[0] && y >= 0 && y < g.in[1];
        rows[at] = inside ? x + ((n * g.in[0] + z) * g.in[1] + y) * g.in[2] * q.channels : nullptr;
      }
    d.residual = residual ? residual + i * row_floats : nullptr;
    d.y = static_cast<float*>(args[4]) + i * row_floats;
    q.kernel->row(q, d);
  }
  return Status::ok;
}

}  // namespace fi
