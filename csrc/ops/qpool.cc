// SPDX-License-Identifier: Apache-2.0
// com.microsoft's QLinearAveragePool and QLinearGlobalAveragePool. (NhwcMaxPool is in pool.cc.)
#include "csrc/ops/spatial.h"
#include "kernels/pool/quantized.h"

namespace fi {
namespace {

void plan_average(PlanContext& ctx, const Node& node, bool global) {
  const DType t = ctx.dtype(0);
  if (t != DType::u8 && t != DType::s8) ctx.not_native(words("quantised pooling of ", name_of(t)));
  if (ctx.shape(0).rank() > 5) ctx.not_native("more than three spatial axes");
  for (int i : {1, 3})
    check(ctx.dtype(i) == DType::f32 && ctx.input(i).elements() == 1, "scale is ", ctx.input(i),
          ", needed one float32");
  for (int i : {2, 4})
    check(!ctx.has_input(i) || (ctx.dtype(i) == t && ctx.input(i).elements() == 1), "zero points are single ",
          name_of(t), " values");
  QuantizedAverage q;
  q.channels_last = node.attributes.i("channels_last", 0) != 0;
  q.is_signed = t == DType::s8;
  const Image in = image_of(ctx.shape(0), q.channels_last);
  q.batch = in.batch;
  q.channels = in.channels;
  if (global) {
    for (int a = 0; a < 3; ++a) {
      q.g.in[a] = q.g.kernel[a] = in.size[a];
      q.g.out[a] = q.g.stride[a] = q.g.dilation[a] = 1;
      q.g.pad[a] = q.g.pad_end[a] = 0;
    }
  } else {
    q.g = geometry_of(WindowAttributes(node), in, {});
    q.count_include_pad = node.attributes.i("count_include_pad", 0) != 0;
  }
  const Shape out = output_image(q.g, in, in.channels).shape();
  const Operand y = ctx.output(0, t, out);
  if (out.elements() == 0) return;
  const double cost = static_cast<double>(out.elements()) * static_cast<double>(q.g.taps() + 8);
  ctx.step("quantized_average", quantized_average_step, q, {ctx.in(0), ctx.in(1), ctx.in(2), ctx.in(3), ctx.in(4), y},
           ctx.parts_for(cost));
}

void plan_window(PlanContext& ctx, const Node& node) { plan_average(ctx, node, false); }
void plan_global(PlanContext& ctx, const Node& node) { plan_average(ctx, node, true); }

}  // namespace

std::unique_ptr<Op> make_qlinear_average_pool(BuildContext& c) { return make_plain<plan_window>(c); }
std::unique_ptr<Op> make_qlinear_global_average_pool(BuildContext& c) { return make_plain<plan_global>(c); }

}  // namespace fi
