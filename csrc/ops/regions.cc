// SPDX-License-Identifier: Apache-2.0
// RoiAlign, MaxRoiPool, MaxUnpool.
#include "kernels/spatial/regions.h"

#include "csrc/ops/spatial.h"

namespace fi {
namespace {

void need_f32(PlanContext& ctx, std::initializer_list<int> inputs) {
  for (int i : inputs)
    if (ctx.dtype(i) != DType::f32) ctx.not_native(words("input ", i, " is ", name_of(ctx.dtype(i))));
}

void plan_roi_align(PlanContext& ctx, const Node& node) {
  need_f32(ctx, {0, 1});
  if (ctx.dtype(2) != DType::s64) ctx.not_native("batch indices are not int64");
  const Shape &x = ctx.shape(0), &rois = ctx.shape(1);
  check(x.rank() == 4, "input ", x, ", needed [N, C, H, W]");
  check(rois.rank() == 2 && rois[1] == 4, "rois ", rois, ", needed [rois, 4]");
  check(ctx.shape(2) == Shape{rois[0]}, "batch_indices ", ctx.shape(2), ", needed ", Shape{rois[0]});
  const Attributes& a = node.attributes;
  RoiAlign q;
  q.batch = x[0], q.channels = x[1], q.height = x[2], q.width = x[3];
  q.rois = rois[0];
  q.out_h = a.i("output_height", 1);
  q.out_w = a.i("output_width", 1);
  q.sampling = a.i("sampling_ratio", 0);
  q.scale = a.f("spatial_scale", 1);
  check_model(q.out_h >= 1 && q.out_w >= 1 && q.sampling >= 0 && q.sampling <= 8192,
              "output_height, output_width or sampling_ratio is out of range");
  const std::string mode = a.s("mode", "avg"), coordinates = a.s("coordinate_transformation_mode", "half_pixel");
  check_model(mode == "avg" || mode == "max", "mode '", mode, "' is not avg or max");
  check_model(coordinates == "half_pixel" || coordinates == "output_half_pixel", "coordinate_transformation_mode '",
              coordinates, "' is unknown");
  q.max = mode == "max";
  q.half_pixel = coordinates == "half_pixel";
  const Shape out{q.rois, q.channels, q.out_h, q.out_w};
  const Operand y = ctx.output(0, DType::f32, out);
  if (out.elements() == 0) return;
  check(q.height > 0 && q.width > 0, "cannot sample input ", x);
  ctx.step("roi_align", roi_align_step, q, {ctx.in(0), ctx.in(1), ctx.in(2), y},
           ctx.parts_for(static_cast<double>(out.elements()) * 64));
}

void plan_max_roi_pool(PlanContext& ctx, const Node& node) {
  need_f32(ctx, {0, 1});
  const Shape &x = ctx.shape(0), &rois = ctx.shape(1);
  check(x.rank() == 4, "input ", x, ", needed [N, C, H, W]");
  check(rois.rank() == 2 && rois[1] == 5, "rois ", rois, ", needed [rois, 5]");
  const std::vector<int64_t> pooled = node.attributes.ints("pooled_shape");
  check_model(pooled.size() == 2 && pooled[0] >= 1 && pooled[1] >= 1, "pooled_shape needs two positive values");
  MaxRoiPool q;
  q.batch = x[0], q.channels = x[1], q.height = x[2], q.width = x[3];
  q.rois = rois[0];
  q.out_h = pooled[0];
  q.out_w = pooled[1];
  q.scale = node.attributes.f("spatial_scale", 1);
  const Shape out{q.rois, q.channels, q.out_h, q.out_w};
  const Operand y = ctx.output(0, DType::f32, out);
  if (out.elements() == 0) return;
  ctx.step("max_roi_pool", max_roi_pool_step, q, {ctx.in(0), ctx.in(1), y},
           ctx.parts_for(static_cast<double>(out.elements()) * 64));
}

void plan_max_unpool(PlanContext& ctx, const Node& node) {
  need_f32(ctx, {0});
  check(ctx.dtype(1) == DType::s64, "indices are ", ctx.input(1), ", needed int64");
  const Shape& x = ctx.shape(0);
  check(ctx.shape(1) == x, "indices ", ctx.shape(1), " do not have the input's shape ", x);
  check(x.rank() >= 3, "input ", x, " has no spatial axis");
  const int n = x.rank() - 2;
  const auto list = [&](const char* name, size_t size, int64_t fallback) {
    std::vector<int64_t> v = node.attributes.ints(name);
    if (v.empty()) v.assign(size, fallback);
    check_model(v.size() == size, name, " has ", v.size(), " values, needed ", size);
    return v;
  };
  const auto kernel = list("kernel_shape", n, 1), strides = list("strides", n, 1), pads = list("pads", 2 * n, 0);
  MaxUnpool q;
  q.rank = x.rank();
  q.elements = x.elements();
  Shape out{x[0], x[1]};
  for (int a = 0; a < n; ++a) {
    check_model(kernel[a] >= 0 && kernel[a] < (1 << 30) && strides[a] >= 1 && strides[a] < (1 << 30),
                "kernel_shape or strides is out of range");
    const int64_t extent = (x[2 + a] - 1) * strides[a] - pads[a] - pads[a + n] + kernel[a];
    check(extent >= 0, "unpooled extent is ", extent);
    out.push(extent);
  }
  for (int a = 0; a < q.rank; ++a) q.inferred[a] = q.out[a] = out[a];
  out.elements();
  if (ctx.has_input(2)) {
    const std::vector<int64_t> given = ctx.require_ints(2);
    check(static_cast<int>(given.size()) == q.rank, "output_shape has ", given.size(), " values, needed ", q.rank);
    for (int a = 0; a < q.rank; ++a) {
      check(given[a] >= out[a], "output_shape ", Shape(given.begin(), given.end()), " is below ", out);
      q.out[a] = given[a];
    }
    out = Shape(given.begin(), given.end());
  }
  const Operand y = ctx.output(0, DType::f32, out);
  if (out.elements() == 0) return;
  ctx.step("max_unpool", max_unpool_step, q, {ctx.in(0), ctx.in(1), y});
}

}  // namespace

std::unique_ptr<Op> make_roi_align(BuildContext& c) { return make_plain<plan_roi_align>(c); }
std::unique_ptr<Op> make_max_roi_pool(BuildContext& c) { return make_plain<plan_max_roi_pool>(c); }
std::unique_ptr<Op> make_max_unpool(BuildContext& c) { return make_plain<plan_max_unpool>(c); }

}  // namespace fi
