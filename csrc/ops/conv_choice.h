// SPDX-License-Identifier: Apache-2.0
// Which algorithm a 3x3 stride-1 convolution takes, where tuning may know better. It decides bits, so its problem is
// one sample's shape.
#pragma once
#include "csrc/ops/op.h"
#include "kernels/conv/geometry.h"
#include "kernels/winograd/winograd.h"

namespace fi {

// m of F(m x m, 3x3), 0 for the direct sum; `usual` where tuning has nothing to say.
inline int choose_winograd(PlanContext& ctx, const Geometry& g, int64_t in, int64_t out, int usual) {
  static constexpr const char* kCandidates[] = {"direct", "winograd 4x4", "winograd 6x6"};
  static constexpr int kSizes[] = {0, 4, 6};
  if (!ctx.tuning()) return usual;
  const size_t n = winograd_f32(ctx.isa(), 6) ? 3 : 2;
  const std::string problem =
      words("convolution f32 3x3 ", g.in[1], "x", g.in[2], "x", in, " ", g.out[1], "x", g.out[2], "x", out, " pad ",
            g.pad[1], ",", g.pad[2], g.dilation[1] > 1 ? words(" dilation ", g.dilation[1]) : std::string());
  return kSizes[ctx.choose(problem, {kCandidates, n}, usual == 0 ? 0 : usual == 4 ? 1 : 2)];
}

}  // namespace fi
