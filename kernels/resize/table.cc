// SPDX-License-Identifier: Apache-2.0
// Where an output position looks, and with what weights: ONNX's Resize, in float64 as onnx.reference does.
#include <algorithm>
#include <cmath>

#include "kernels/resize/resize.h"

namespace fi {
namespace {

double cubic(double x, double a) {
  x = std::abs(x);
  if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
  return 0;
}

// The input coordinate of output position y.
double source(const ResizeAxis& q, double y) {
  const auto in = static_cast<double>(q.in);
  const double width = q.scale * in;  // need not be integral: the output extent is its floor
  switch (q.coordinates) {
    case ResizeCoordinates::align_corners:
      return width == 1 ? 0 : y * (in - 1) / (width - 1);
    case ResizeCoordinates::asymmetric:
      return y / q.scale;
    case ResizeCoordinates::pytorch_half_pixel:
      return width == 1 ? -0.5 : (y + 0.5) / q.scale - 0.5;
    case ResizeCoordinates::half_pixel:
      return (y + 0.5) / q.scale - 0.5;
    case ResizeCoordinates::half_pixel_symmetric:
      return in / 2 * (1 - static_cast<double>(q.out) / width) + (y + 0.5) / q.scale - 0.5;
    case ResizeCoordinates::tf_crop_and_resize: {
      const double span = (q.roi_end - q.roi_begin) * (in - 1);
      return (width == 1 ? span / 2 : y * span / (width - 1)) + q.roi_begin * (in - 1);
    }
  }
  return 0;
}

// Left of the two neighbours, or right? ratio in (0, 1] is the distance from the left one.
bool right(ResizeNearest how, double ratio) {
  if (ratio == 1) return true;
  switch (how) {
    case ResizeNearest::round_prefer_floor:
      return ratio > 0.5;
    case ResizeNearest::round_prefer_ceil:
      return ratio >= 0.5;
    case ResizeNearest::floor:
      return false;
    case ResizeNearest::ceil:
      return true;
  }
  return false;
}

// Weight of the tap `offset` positions right of the left neighbour.
double weight(const ResizeAxis& q, double offset, double ratio) {
  const double squeeze = q.antialias ? std::min(q.scale, 1.0) : 1.0, x = (offset - ratio) * squeeze;
  return q.mode == ResizeMode::cubic ? cubic(x, q.cubic_a) : std::clamp(1 - std::abs(x), 0.0, 1.0);
}

int32_t clamped(double i, int64_t n) {
  return static_cast<int32_t>(std::clamp<double>(i, 0, static_cast<double>(n - 1)));
}

void fill_taps(const ResizeAxis& q, int64_t taps, double left, double ratio, int32_t* index, float* w) {
  const double first = 1 - static_cast<double>(taps / 2);
  double sum = 0;
  for (int64_t k = 0; k < taps; ++k) {
    const double at = left + first + static_cast<double>(k);
    const bool out = at < 0 || at > static_cast<double>(q.in - 1);
    if (!(q.exclude_outside && out)) sum += weight(q, first + static_cast<double>(k), ratio);
  }
  // Plain linear and cubic weights add up to 1 by construction.
  const double scale = (q.antialias || q.exclude_outside) && sum != 0 ? 1 / sum : 1;
  for (int64_t k = 0; k < taps; ++k) {
    const double at = left + first + static_cast<double>(k);
    const bool out = at < 0 || at > static_cast<double>(q.in - 1);
    index[k] = clamped(at, q.in);
    w[k] =
        q.exclude_outside && out ? 0.f : static_cast<float>(weight(q, first + static_cast<double>(k), ratio) * scale);
  }
}

}  // namespace

int64_t resize_taps(const ResizeAxis& q) {
  if (q.mode == ResizeMode::nearest) return 1;
  const double reach = q.mode == ResizeMode::cubic ? 2 : 1;
  if (!q.antialias) return static_cast<int64_t>(2 * reach);
  return 2 - 2 * static_cast<int64_t>(std::floor(-reach / std::min(q.scale, 1.0)) + 1);
}

size_t resize_table_bytes(const ResizeAxis& q) { return static_cast<size_t>(q.out * (resize_taps(q) * 8 + 1)); }

Status resize_table_step(const void* params, void* const* args, int, int) {
  const auto& q = *static_cast<const ResizeAxis*>(params);
  const int64_t taps = resize_taps(q);
  auto* index = static_cast<int32_t*>(args[0]);
  auto* w = reinterpret_cast<float*>(index + q.out * taps);
  auto* outside = reinterpret_cast<uint8_t*>(w + q.out * taps);
  for (int64_t y = 0; y < q.out; ++y, index += taps, w += taps) {
    double x = source(q, static_cast<double>(y));
    if (!std::isfinite(x)) x = 0;
    outside[y] = q.coordinates == ResizeCoordinates::tf_crop_and_resize && (x < 0 || x > static_cast<double>(q.in - 1));
    // An exact hit counts as the right neighbour: the ratio is in (0, 1].
    double left = std::floor(x), ratio = x - left;
    if (ratio == 0) {
      left -= 1;
      ratio = 1;
    }
    if (q.mode == ResizeMode::nearest) {
      index[0] = clamped(left + (right(q.nearest, ratio) ? 1 : 0), q.in);
      w[0] = 1;
    } else {
      fill_taps(q, taps, left, ratio, index, w);
    }
  }
  return Status::ok;
}

}  // namespace fi
