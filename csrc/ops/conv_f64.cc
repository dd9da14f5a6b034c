// SPDX-License-Identifier: Apache-2.0
// Conv of float64, channels first, as the model has it.
#include "csrc/ops/conv.h"
#include "kernels/gemm/product_f64.h"

namespace fi {

void plan_conv_f64(PlanContext& ctx, const WindowAttributes& attributes, int64_t groups) {
  for (int i = 0; i < ctx.n_inputs(); ++i)
    check_model(!ctx.has_input(i) || ctx.dtype(i) == DType::f64, "input ", i, " is ", name_of(ctx.dtype(i)),
                ", the others are float64");
  const Shape &x = ctx.shape(0), &w = ctx.shape(1);
  const Image in = image_of(x, false);
  check(w.rank() == in.spatial + 2, "weight ", w, " does not fit input ", x);
  check(w[0] % groups == 0, "weight ", w, " has ", w[0], " output channels, needed: a multiple of ", groups);
  check(in.channels == w[1] * groups, "input ", x, " has ", in.channels, " channels, weight ", w, " in ", groups,
        " groups needs ", w[1] * groups);
  const Geometry g = geometry_of(attributes, in, std::vector<int64_t>(w.begin() + 2, w.end()));
  const Image out = output_image(g, in, w[0]);
  check(!ctx.has_input(2) || ctx.shape(2) == Shape{w[0]}, "bias is ", ctx.has_input(2) ? ctx.shape(2) : Shape{},
        ", needed ", Shape{w[0]});
  const Operand y = ctx.output(0, DType::f64, out.shape());
  if (out.shape().elements() == 0) return;
  const TileF64Kernel kernel = select_tile_f64(ctx.isa());
  ConvF64 p{kernel.run, in.batch, groups, w[1], w[0] / groups, {}, {}, {}, {}, {}, {}};
  for (int a = 0; a < 3; ++a) {
    p.in[a] = g.in[a];
    p.out[a] = g.out[a];
    p.kernel[a] = g.kernel[a];
    p.stride[a] = g.stride[a];
    p.dilation[a] = g.dilation[a];
    p.pad[a] = g.pad[a];
  }
  const double macs = static_cast<double>(out.shape().elements()) * static_cast<double>(w[1] * g.taps());
  ctx.step(kernel.name, conv_f64_step, p, {ctx.in(0), ctx.in(1), ctx.in(2), y}, ctx.parts_for(macs), 2 * macs);
}

}  // namespace fi
