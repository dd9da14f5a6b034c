// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "csrc/ops/op.h"
#include "kernels/move/order_key.h"

namespace fi {
namespace {

struct Box {
  float x0, y0, x1, y1, area;
};

Box box_of(const float* b, bool center) {
  Box r;
  if (center) {
    r = {b[0] - b[2] / 2, b[1] - b[3] / 2, b[0] + b[2] / 2, b[1] + b[3] / 2, 0};
  } else {
    r = {std::min(b[1], b[3]), std::min(b[0], b[2]), std::max(b[1], b[3]), std::max(b[0], b[2]), 0};
  }
  r.area = (r.x1 - r.x0) * (r.y1 - r.y0);
  return r;
}

// Written so that NaN never suppresses.
bool overlaps(const Box& a, const Box& b, float threshold) {
  const float w = std::min(a.x1, b.x1) - std::max(a.x0, b.x0), h = std::min(a.y1, b.y1) - std::max(a.y0, b.y0);
  if (!(w > 0 && h > 0 && a.area > 0 && b.area > 0)) return false;
  const float common = w * h, all = a.area + b.area - common;
  return common > 0 && all > 0 && common / all > threshold;
}

struct Limits {
  int64_t count = 0;
  float iou = 0, score = 0;
  bool by_score = false;
};

// Best score first, ties to the lower index; a NaN score comes last.
std::vector<int64_t> candidates(const float* scores, int64_t n, const Limits& limits) {
  std::vector<int64_t> order;
  for (int64_t i = 0; i < n; ++i)
    if (!limits.by_score || scores[i] > limits.score) order.push_back(i);
  auto key = [&](int64_t i) { return scores[i] == scores[i] ? order_key(scores[i]) : 0; };
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    const uint64_t x = key(a), y = key(b);
    return x != y ? x > y : a < b;
  });
  return order;
}

std::vector<int64_t> select(const std::vector<Box>& boxes, const float* scores, const Limits& limits) {
  std::vector<int64_t> kept;
  for (int64_t i : candidates(scores, static_cast<int64_t>(boxes.size()), limits)) {
    if (static_cast<int64_t>(kept.size()) >= limits.count) break;
    const bool free =
        std::none_of(kept.begin(), kept.end(), [&](int64_t k) { return overlaps(boxes[i], boxes[k], limits.iou); });
    if (free) kept.push_back(i);
  }
  return kept;
}

template <class T>
bool read_one(const Tensor& t, DType dtype, const char* name, T& value) {
  if (!t || t.desc.elements() == 0) return false;
  check(t.desc.dtype == dtype && t.desc.elements() == 1, name, " is ", t.desc, ", needed: one ", name_of(dtype));
  value = *t.as<T>();
  return true;
}

struct NonMaxSuppression final : Op {
  const Node& node;
  explicit NonMaxSuppression(const Node& n) : node(n) {}

  void plan(PlanContext& ctx) const override {
    const Shape &b = ctx.shape(0), &s = ctx.shape(1);
    check(ctx.dtype(0) == DType::f32 && ctx.dtype(1) == DType::f32 && b.rank() == 3 && s.rank() == 3 && b[2] == 4 &&
              b[0] == s[0] && b[1] == s[2],
          "boxes are ", ctx.input(0), ", scores ", ctx.input(1), ", needed: float32 [n,m,4] and [n,classes,m]");
    ctx.eager();
  }

  void run_eager(EagerContext& ctx) const override {
    const Tensor &boxes = ctx.input(0), &scores = ctx.input(1);
    const int64_t batches = scores.desc.shape[0], classes = scores.desc.shape[1], n = scores.desc.shape[2];
    const bool center = node.attributes.i("center_point_box", 0) != 0;
    Limits limits;
    read_one(ctx.input(2), DType::s64, "max_output_boxes_per_class", limits.count);
    read_one(ctx.input(3), DType::f32, "iou_threshold", limits.iou);
    limits.by_score = read_one(ctx.input(4), DType::f32, "score_threshold", limits.score);
    std::vector<int64_t> found;
    for (int64_t b = 0; b < batches && limits.count > 0; ++b) {
      std::vector<Box> prepared(n);
      for (int64_t i = 0; i < n; ++i) prepared[i] = box_of(boxes.as<float>() + (b * n + i) * 4, center);
      for (int64_t c = 0; c < classes; ++c)
        for (int64_t i : select(prepared, scores.as<float>() + (b * classes + c) * n, limits))
          found.insert(found.end(), {b, c, i});
    }
    Tensor& y = ctx.allocate(0, DType::s64, Shape{static_cast<int64_t>(found.size()) / 3, 3});
    std::copy(found.begin(), found.end(), static_cast<int64_t*>(y.data));
  }
};

}  // namespace

std::unique_ptr<Op> make_nms(BuildContext& c) { return std::make_unique<NonMaxSuppression>(c.node); }

}  // namespace fi
