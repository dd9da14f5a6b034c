// SPDX-License-Identifier: Apache-2.0
#include "kernels/spatial/regions.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace fi {
namespace {

// Sampling points per bin and axis beyond which a region is taken for garbage.
constexpr float kMaxGrid = 8192;

// One region of RoiAlign.
class Region {
 public:
  Region(const RoiAlign& q, const float* roi) : q_(q) {
    const float offset = q.half_pixel ? 0.5f : 0.f;
    x_ = roi[0] * q.scale - offset;
    y_ = roi[1] * q.scale - offset;
    float w = roi[2] * q.scale - offset - x_, h = roi[3] * q.scale - offset - y_;
    if (!q.half_pixel) {
      w = std::max(w, 1.f);
      h = std::max(h, 1.f);
    }
    bin_h_ = h / static_cast<float>(q.out_h);
    bin_w_ = w / static_cast<float>(q.out_w);
    grid_h_ = q.sampling > 0 ? static_cast<float>(q.sampling) : std::ceil(bin_h_);
    grid_w_ = q.sampling > 0 ? static_cast<float>(q.sampling) : std::ceil(bin_w_);
  }
  bool valid() const {
    return std::isfinite(x_) && std::isfinite(y_) && std::isfinite(bin_h_) && std::isfinite(bin_w_) &&
           grid_h_ <= kMaxGrid && grid_w_ <= kMaxGrid;
  }

  float bin(const float* plane, int64_t ph, int64_t pw) const {
    const auto gh = static_cast<int64_t>(grid_h_), gw = static_cast<int64_t>(grid_w_);
    float sum = 0, best = 0;
    bool first = true;
    for (int64_t i = 0; i < gh; ++i)
      for (int64_t j = 0; j < gw; ++j) {
        const float y = y_ + static_cast<float>(ph) * bin_h_ + (static_cast<float>(i) + 0.5f) * bin_h_ / grid_h_;
        const float x = x_ + static_cast<float>(pw) * bin_w_ + (static_cast<float>(j) + 0.5f) * bin_w_ / grid_w_;
        float corner[4] = {};
        corners(plane, y, x, corner);
        sum += corner[0] + corner[1] + corner[2] + corner[3];
        const float top = std::max(std::max(corner[0], corner[1]), std::max(corner[2], corner[3]));
        best = first ? top : std::max(best, top);
        first = false;
      }
    if (q_.max) return best;
    return sum / static_cast<float>(std::max<int64_t>(gh * gw, 1));
  }

 private:
  // The four weighted neighbours; 0 outside.
  void corners(const float* plane, float y, float x, float* corner) const {
    const int64_t h = q_.height, w = q_.width;
    if (y < -1 || y > static_cast<float>(h) || x < -1 || x > static_cast<float>(w)) return;
    y = std::max(y, 0.f);
    x = std::max(x, 0.f);
    int64_t y0 = static_cast<int64_t>(y), x0 = static_cast<int64_t>(x), y1 = y0 + 1, x1 = x0 + 1;
    if (y0 >= h - 1) y = static_cast<float>(y0 = y1 = h - 1);
    if (x0 >= w - 1) x = static_cast<float>(x0 = x1 = w - 1);
    const float ly = y - static_cast<float>(y0), lx = x - static_cast<float>(x0);
    corner[0] = (1 - ly) * (1 - lx) * plane[y0 * w + x0];
    corner[1] = (1 - ly) * lx * plane[y0 * w + x1];
    corner[2] = ly * (1 - lx) * plane[y1 * w + x0];
    corner[3] = ly * lx * plane[y1 * w + x1];
  }

  const RoiAlign& q_;
  float x_, y_, bin_h_, bin_w_, grid_h_, grid_w_;
};

// The pixels of a bin on one axis: [begin, end).
struct Bin {
  int64_t begin, end;
};
Bin bin_of(int64_t i, float size, int64_t start, int64_t extent) {
  const auto clip = [&](float v) { return std::clamp<int64_t>(static_cast<int64_t>(v) + start, 0, extent); };
  return {clip(std::floor(static_cast<float>(i) * size)), clip(std::ceil(static_cast<float>(i + 1) * size))};
}

}  // namespace

Status roi_align_step(const void* params, void* const* args, int part, int parts) {
  const auto& q = *static_cast<const RoiAlign*>(params);
  const auto [begin, end] = part_of(q.rois, part, parts);
  for (int64_t r = begin; r < end; ++r) {
    const int64_t n = static_cast<const int64_t*>(args[2])[r];
    if (n < 0 || n >= q.batch) return bad_index(n, 0, q.batch);
    const Region region(q, static_cast<const float*>(args[1]) + r * 4);
    if (!region.valid()) return Status::bad_value;
    for (int64_t c = 0; c < q.channels; ++c) {
      const float* plane = static_cast<const float*>(args[0]) + (n * q.channels + c) * q.height * q.width;
      float* y = static_cast<float*>(args[3]) + (r * q.channels + c) * q.out_h * q.out_w;
      for (int64_t ph = 0; ph < q.out_h; ++ph)
        for (int64_t pw = 0; pw < q.out_w; ++pw) y[ph * q.out_w + pw] = region.bin(plane, ph, pw);
    }
  }
  return Status::ok;
}

Status max_roi_pool_step(const void* params, void* const* args, int part, int parts) {
  const auto& q = *static_cast<const MaxRoiPool*>(params);
  const auto [begin, end] = part_of(q.rois, part, parts);
  for (int64_t r = begin; r < end; ++r) {
    const float* roi = static_cast<const float*>(args[1]) + r * 5;
    if (!(roi[0] >= 0 && roi[0] < static_cast<float>(q.batch)))
      return bad_index(std::abs(roi[0]) < 1e9f ? static_cast<int64_t>(roi[0]) : -1, 0, q.batch);
    float edge[4];
    for (int i = 0; i < 4; ++i) {
      edge[i] = std::round(roi[1 + i] * q.scale);
      if (!(std::abs(edge[i]) < 1e9f)) return Status::bad_value;
    }
    const float bin_w = std::max(edge[2] - edge[0] + 1, 1.f) / static_cast<float>(q.out_w);
    const float bin_h = std::max(edge[3] - edge[1] + 1, 1.f) / static_cast<float>(q.out_h);
    for (int64_t c = 0; c < q.channels; ++c) {
      const float* plane =
          static_cast<const float*>(args[0]) + (static_cast<int64_t>(roi[0]) * q.channels + c) * q.height * q.width;
      float* y = static_cast<float*>(args[2]) + (r * q.channels + c) * q.out_h * q.out_w;
      for (int64_t ph = 0; ph < q.out_h; ++ph)
        for (int64_t pw = 0; pw < q.out_w; ++pw) {
          const Bin bh = bin_of(ph, bin_h, static_cast<int64_t>(edge[1]), q.height);
          const Bin bw = bin_of(pw, bin_w, static_cast<int64_t>(edge[0]), q.width);
          const bool empty = bh.begin >= bh.end || bw.begin >= bw.end;
          float best = empty ? 0 : plane[bh.begin * q.width + bw.begin];
          for (int64_t h = bh.begin; h < bh.end; ++h)
            for (int64_t w = bw.begin; w < bw.end; ++w) best = std::max(best, plane[h * q.width + w]);
          y[ph * q.out_w + pw] = best;
        }
    }
  }
  return Status::ok;
}

Status max_unpool_step(const void* params, void* const* args, int, int) {
  const auto& q = *static_cast<const MaxUnpool*>(params);
  const auto* x = static_cast<const float*>(args[0]);
  const auto* index = static_cast<const int64_t*>(args[1]);
  auto* y = static_cast<float*>(args[2]);
  int64_t inferred = 1, out = 1;
  for (int a = 0; a < q.rank; ++a) {
    inferred *= q.inferred[a];
    out *= q.out[a];
  }
  std::memset(y, 0, static_cast<size_t>(out) * sizeof(float));
  for (int64_t e = 0; e < q.elements; ++e) {
    int64_t i = index[e];
    if (i < 0 || i >= inferred) return bad_index(i, 0, inferred);
    int64_t to = 0, step = 1;
    for (int a = q.rank - 1; a >= 0; --a) {
      to += i % q.inferred[a] * step;
      i /= q.inferred[a];
      step *= q.out[a];
    }
    y[to] = x[e];
  }
  return Status::ok;
}

}  // namespace fi
