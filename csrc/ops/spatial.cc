// SPDX-License-Identifier: Apache-2.0
#include "csrc/ops/spatial.h"

#include <algorithm>

namespace fi {
namespace {

constexpr int64_t kMaxExtent = int64_t{1} << 31;

std::vector<int64_t> list_of(const std::vector<int64_t>& given, const char* what, int n, int64_t fallback,
                             int64_t least) {
  if (given.empty()) return std::vector<int64_t>(n, fallback);
  check_model(static_cast<int>(given.size()) == n, what, " has ", given.size(), " values, needed ", n);
  for (int64_t v : given)
    check_model(v >= least && v < kMaxExtent, what, " ", Shape(given.begin(), given.end()), ": needed at least ",
                least);
  return given;
}

}  // namespace

Shape Image::shape() const {
  Shape s{batch};
  if (!channels_last) s.push(channels);
  for (int i = 3 - spatial; i < 3; ++i) s.push(size[i]);
  if (channels_last) s.push(channels);
  return s;
}

Image image_of(const Shape& s, bool channels_last) {
  check(s.rank() >= 3 && s.rank() <= 5, "input ", s, " has rank ", s.rank(),
        ", needed 3 to 5 (batch, channels, spatial)");
  Image im;
  im.channels_last = channels_last;
  im.spatial = s.rank() - 2;
  im.batch = s[0];
  im.channels = channels_last ? s.back() : s[1];
  for (int i = 0; i < im.spatial; ++i) im.size[3 - im.spatial + i] = s[i + (channels_last ? 1 : 2)];
  return im;
}

WindowAttributes::WindowAttributes(const Node& node) {
  const Attributes& a = node.attributes;
  kernel = a.ints("kernel_shape");
  strides = a.ints("strides");
  dilations = a.ints("dilations");
  pads = a.ints("pads");
  auto_pad = a.s("auto_pad", "NOTSET");
  ceil_mode = a.i("ceil_mode", 0) != 0;
  if (auto_pad.empty()) auto_pad = "NOTSET";
  check_model(auto_pad == "NOTSET" || auto_pad == "VALID" || auto_pad == "SAME_UPPER" || auto_pad == "SAME_LOWER",
              "auto_pad '", auto_pad, "' is not one of NOTSET, VALID, SAME_UPPER, SAME_LOWER");
}

Geometry geometry_of(const WindowAttributes& w, const Image& image, const std::vector<int64_t>& kernel) {
  const int n = image.spatial, lead = 3 - n;
  check_model(!kernel.empty() || !w.kernel.empty(), "attribute 'kernel_shape' is required");
  if (!kernel.empty() && !w.kernel.empty())
    check(kernel == w.kernel, "kernel_shape ", Shape(w.kernel.begin(), w.kernel.end()), " does not fit the weight's ",
          Shape(kernel.begin(), kernel.end()));
  const auto k = list_of(kernel.empty() ? w.kernel : kernel, "kernel_shape", n, 1, kernel.empty() ? 1 : 0);
  const auto stride = list_of(w.strides, "strides", n, 1, 1), dilation = list_of(w.dilations, "dilations", n, 1, 1);
  const bool same = w.auto_pad == "SAME_UPPER" || w.auto_pad == "SAME_LOWER";
  const auto pads = list_of(w.auto_pad == "NOTSET" ? w.pads : std::vector<int64_t>{}, "pads", 2 * n, 0, -kMaxExtent);
  Geometry g;
  for (int a = 0; a < 3; ++a) {
    const int i = a - lead;
    const bool real = i >= 0;
    g.in[a] = image.size[a];
    g.kernel[a] = real ? k[i] : 1;
    g.stride[a] = real ? stride[i] : 1;
    g.dilation[a] = real ? dilation[i] : 1;
    g.pad[a] = real ? pads[i] : 0;
    g.pad_end[a] = real ? pads[i + n] : 0;
    const int64_t span = (g.kernel[a] - 1) * g.dilation[a] + 1;
    check_model(span < kMaxExtent, "kernel extent ", g.kernel[a], " with dilation ", g.dilation[a], " is too large");
    if (same) {
      g.out[a] = (g.in[a] + g.stride[a] - 1) / g.stride[a];
      const int64_t total = std::max<int64_t>(0, (g.out[a] - 1) * g.stride[a] + span - g.in[a]);
      g.pad[a] = w.auto_pad == "SAME_UPPER" ? total / 2 : total - total / 2;
      g.pad_end[a] = total - g.pad[a];
      continue;
    }
    const int64_t room = g.in[a] + g.pad[a] + g.pad_end[a] - span;
    // A window larger than the image is one that ceil_mode cuts short, if its stride reaches that far.
    if (w.ceil_mode && room < 0 && room > -g.stride[a] && g.in[a] > 0) {
      g.out[a] = 1;
      continue;
    }
    check(room >= 0 || g.in[a] == 0, "window of ", span, " does not fit an extent of ", g.in[a], " with pads ",
          g.pad[a], " and ", g.pad_end[a]);
    if (room < 0) {
      g.out[a] = 0;
      continue;
    }
    g.out[a] = room / g.stride[a] + 1;
    // A window that would start in the end padding is dropped.
    if (w.ceil_mode && room % g.stride[a] != 0 && g.out[a] * g.stride[a] < g.in[a] + g.pad[a]) ++g.out[a];
  }
  return g;
}

}  // namespace fi
