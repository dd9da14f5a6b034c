// SPDX-License-Identifier: Apache-2.0
// GridSample and AffineGrid.
#include "kernels/spatial/sample.h"

#include "csrc/ops/spatial.h"

namespace fi {
namespace {

void plan_grid_sample(PlanContext& ctx, const Node& node) {
  if (ctx.dtype(0) != DType::f32 || ctx.dtype(1) != DType::f32) ctx.not_native("GridSample is native for float32 only");
  if (ctx.shape(0).rank() > 5) ctx.not_native("more than three spatial axes");
  const Image in = image_of(ctx.shape(0), false);
  const Shape& grid = ctx.shape(1);
  check(grid.rank() == in.spatial + 2 && grid[0] == in.batch && grid.back() == in.spatial, "grid ", grid,
        " does not fit input ", ctx.shape(0), ": needed [batch, output..., ", in.spatial, "]");
  GridSample q;
  q.axes = in.spatial;
  q.batch = in.batch;
  q.channels = in.channels;
  for (int a = 0; a < 3; ++a) q.in[a] = in.size[a];
  q.out_pixels = grid.elements(1, grid.rank() - 1);
  const std::string mode = node.attributes.s("mode", "linear");
  if (mode == "nearest")
    q.mode = SampleMode::nearest;
  else if (mode == "linear" || mode == "bilinear")
    q.mode = SampleMode::linear;
  else if (mode == "cubic" || mode == "bicubic")
    q.mode = SampleMode::cubic;
  else
    throw ModelError(words("mode '", mode, "' is not nearest, linear or cubic"));
  const std::string padding = node.attributes.s("padding_mode", "zeros");
  if (padding == "zeros")
    q.padding = SamplePadding::zeros;
  else if (padding == "border")
    q.padding = SamplePadding::border;
  else if (padding == "reflection")
    q.padding = SamplePadding::reflection;
  else
    throw ModelError(words("padding_mode '", padding, "' is not zeros, border or reflection"));
  q.align_corners = node.attributes.i("align_corners", 0) != 0;
  Shape out{in.batch, in.channels};
  for (int a = 1; a <= in.spatial; ++a) out.push(grid[a]);
  const Operand y = ctx.output(0, DType::f32, out);
  if (out.elements() == 0) return;
  check(in.pixels() > 0, "cannot sample input ", ctx.shape(0));
  ctx.step("grid_sample", grid_sample_step, q, {ctx.in(0), ctx.in(1), y},
           ctx.parts_for(static_cast<double>(q.batch * q.out_pixels * (q.channels + 8)) * 8));
}

void plan_affine_grid(PlanContext& ctx, const Node& node) {
  if (ctx.dtype(0) != DType::f32) ctx.not_native("AffineGrid is native for float32 only");
  const std::vector<int64_t> size = ctx.require_ints(1);
  check(size.size() == 4 || size.size() == 5, "size has ", size.size(), " values, needed 4 or 5");
  AffineGrid q;
  q.axes = static_cast<int>(size.size()) - 2;
  q.batch = size[0];
  Shape out{size[0]};
  for (int a = 0; a < q.axes; ++a) {
    check(size[2 + a] >= 0, "size ", Shape(size.begin(), size.end()), " has a negative extent");
    q.size[3 - q.axes + a] = size[2 + a];
    out.push(size[2 + a]);
  }
  out.push(q.axes);
  const Shape theta{size[0], q.axes, q.axes + 1};
  check(ctx.shape(0) == theta, "theta is ", ctx.shape(0), ", needed ", theta);
  q.align_corners = node.attributes.i("align_corners", 0) != 0;
  const Operand y = ctx.output(0, DType::f32, out);
  if (out.elements() == 0) return;
  ctx.step("affine_grid", affine_grid_step, q, {ctx.in(0), y}, ctx.parts_for(static_cast<double>(out.elements()) * 8));
}

}  // namespace

std::unique_ptr<Op> make_grid_sample(BuildContext& c) { return make_plain<plan_grid_sample>(c); }
std::unique_ptr<Op> make_affine_grid(BuildContext& c) { return make_plain<plan_affine_grid>(c); }

}  // namespace fi
