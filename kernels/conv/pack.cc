// SPDX-License-Identifier: Apache-2.0
// Convolution weights in the panels of the GEMM family.
#include <vector>

#include "kernels/conv/classes.h"
#include "kernels/conv/conv_bf16.h"

namespace fi {
namespace {

int64_t taps_of(const ConvWeights& w) { return w.kernel[0] * w.kernel[1] * w.kernel[2]; }
GemmPanels panels_of(const ConvWeights& w) { return {taps_of(w), w.in_per_group, w.out_per_group, w.nr}; }

// Offsets of W's elements: [O, I/g, taps], or transposed [I, O/g, taps].
struct Strides {
  int64_t tap = 1, in, out, group;
};
Strides strides_of(const ConvWeights& w) {
  const int64_t taps = taps_of(w);
  Strides s;
  s.in = w.transposed ? w.out_per_group * taps : taps;
  s.out = w.transposed ? taps : w.in_per_group * taps;
  s.group = w.in_per_group * w.out_per_group * taps;
  return s;
}

// The taps in packed order, as indices into W's (kd, kh, kw).
std::vector<int64_t> tap_order(const ConvWeights& w) {
  Geometry g{};
  for (int a = 0; a < 3; ++a) {
    g.kernel[a] = w.kernel[a];
    g.stride[a] = w.stride[a];
    g.dilation[a] = w.dilation[a];
  }
  std::vector<int64_t> order;
  for (ClassIterator it(g, w.transposed); it.next();)
    it.each_tap(
        [&](int64_t kd, int64_t kh, int64_t kw) { order.push_back((kd * w.kernel[1] + kh) * w.kernel[2] + kw); });
  return order;
}

}  // namespace

int64_t conv_packed_floats(const ConvWeights& w) { return w.groups * packed_floats(panels_of(w)); }

void conv_f32_pack(const GemmF32& kernel, const ConvWeights& w, const float* dense, float* packed) {
  const GemmPanels p = panels_of(w);
  const Strides s = strides_of(w);
  const std::vector<int64_t> order = tap_order(w);
  for (int64_t g = 0; g < w.groups; ++g)
    for (int64_t i = 0; i < panel_count(p); ++i)
      for (int64_t t = 0; t < p.taps; ++t)
        kernel.pack_panel(dense + g * s.group + i * p.nr * s.out + order[t] * s.tap, s.in, s.out, p.k, panel_cols(p, i),
                          panel_width(p, i),
                          packed + g * packed_floats(p) + panel_offset(p, i) + t * p.k * panel_width(p, i));
}

void conv_f32_unpack(const ConvWeights& w, const float* packed, float* dense) {
  const GemmPanels p = panels_of(w);
  const Strides s = strides_of(w);
  const std::vector<int64_t> order = tap_order(w);
  for (int64_t g = 0; g < w.groups; ++g)
    for (int64_t n = 0; n < p.n; ++n) {
      const int64_t i = n / p.nr;
      const float* column = packed + g * packed_floats(p) + panel_offset(p, i) + n % p.nr;
      for (int64_t t = 0; t < p.taps; ++t)
        for (int64_t k = 0; k < p.k; ++k)
          dense[g * s.group + n * s.out + k * s.in + order[t] * s.tap] = column[(t * p.k + k) * panel_width(p, i)];
    }
}

namespace {
BF16Panels bf16_panels_of(const ConvWeights& w) { return {taps_of(w), w.in_per_group, w.out_per_group}; }
}  // namespace

int64_t conv_bf16_packed_elements(const ConvWeights& w) { return w.groups * bf16_panels_of(w).elements(); }

void conv_bf16_pack(const ConvWeights& w, const float* dense, uint16_t* packed) {
  const BF16Panels p = bf16_panels_of(w);
  const Strides s = strides_of(w);
  const std::vector<int64_t> order = tap_order(w);
  for (int64_t g = 0; g < w.groups; ++g)
    gemm_bf16_pack(p, dense + g * s.group, s.tap, s.in, s.out, packed + g * p.elements(), order.data());
}

void conv_bf16_unpack(const ConvWeights& w, const uint16_t* packed, float* dense) {
  const BF16Panels p = bf16_panels_of(w);
  const Strides s = strides_of(w);
  const std::vector<int64_t> order = tap_order(w);
  for (int64_t g = 0; g < w.groups; ++g)
    gemm_bf16_unpack(p, packed + g * p.elements(), dense + g * s.group, s.tap, s.in, s.out, order.data());
}

}  // namespace fi
