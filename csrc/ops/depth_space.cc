// SPDX-License-Identifier: Apache-2.0
// DepthToSpace and SpaceToDepth: transposes of six axes, standard and channels last.
#include "csrc/ops/copy_step.h"
#include "csrc/ops/spatial.h"
#include "kernels/move/transpose.h"

namespace fi {
namespace {

void plan_rearranged(PlanContext& ctx, const Node& node, bool to_space) {
  const bool last = node.attributes.i("channels_last", 0) != 0;
  check(ctx.shape(0).rank() == 4, "input ", ctx.shape(0), ", needed rank 4");
  const Image in = image_of(ctx.shape(0), last);
  const int64_t b = node.attributes.i("blocksize");
  check_model(b >= 1 && b < (1 << 15), "blocksize ", b, " is out of range");
  const int64_t n = in.batch, c = in.channels, h = in.size[1], w = in.size[2];
  const std::string mode = to_space ? node.attributes.s("mode", "DCR") : "DCR";
  check_model(mode == "DCR" || mode == "CRD", "mode '", mode, "' is not DCR or CRD");
  const bool depth_first = mode == "DCR";
  Image out = in;
  Shape six;
  std::array<int, 6> perm;
  if (to_space) {
    check(c % (b * b) == 0, "input ", ctx.shape(0), " has ", c, " channels, needed a multiple of ", b * b);
    out.channels = c / (b * b);
    out.size = {1, h * b, w * b};
    const int64_t d = out.channels;
    if (last) {
      six = depth_first ? Shape{n, h, w, b, b, d} : Shape{n, h, w, d, b, b};
      perm = depth_first ? std::array{0, 1, 3, 2, 4, 5} : std::array{0, 1, 4, 2, 5, 3};
    } else {
      six = depth_first ? Shape{n, b, b, d, h, w} : Shape{n, d, b, b, h, w};
      perm = depth_first ? std::array{0, 3, 4, 1, 5, 2} : std::array{0, 1, 4, 2, 5, 3};
    }
  } else {
    check(h % b == 0 && w % b == 0, "input ", ctx.shape(0), " does not divide into blocks of ", b);
    out.channels = c * b * b;
    out.size = {1, h / b, w / b};
    six = last ? Shape{n, h / b, b, w / b, b, c} : Shape{n, c, h / b, b, w / b, b};
    perm = last ? std::array{0, 1, 3, 2, 4, 5} : std::array{0, 3, 5, 1, 2, 4};
  }
  const DType t = ctx.dtype(0);
  const Operand y = ctx.output(0, t, out.shape());
  add_copy(ctx, transpose_copy(six, perm, static_cast<int64_t>(size_of(t))), ctx.in(0), y);
}

void plan_depth_to_space(PlanContext& ctx, const Node& node) { plan_rearranged(ctx, node, true); }
void plan_space_to_depth(PlanContext& ctx, const Node& node) { plan_rearranged(ctx, node, false); }

}  // namespace

std::unique_ptr<Op> make_depth_to_space(BuildContext& c) { return make_plain<plan_depth_to_space>(c); }
std::unique_ptr<Op> make_space_to_depth(BuildContext& c) { return make_plain<plan_space_to_depth>(c); }

}  // namespace fi
