// SPDX-License-Identifier: Apache-2.0
// A chain of dense layers in one launch, for models so small that launches cost more than their arithmetic:
//   x_{l+1}[m, o] = act_l(bias_l[o] + sum over i of W_l[o, i] x_l[m, i])
// W, bias, x_0 and the last x of one type (float32, float16, bfloat16), what lies between in float32.
//
// A layer of 512 by 512 is 0.5 MB of bfloat16: 0.1 us of the device's memory, against more than 1 us for a launch even
// inside a CUDA graph; the bound is latency. So a thread block cluster takes 8 rows through all layers: every block
// holds all features of its rows in shared memory, computes its share of a layer's features and writes them into every
// block's shared memory; a cluster barrier ends a layer. Weights come through L2, where the first blocks ask for all
// layers' at the start, before they wait for the launch whose result they read (griddepcontrol). A warp computes 4
// features of 8 rows: its lanes stride over i with 16-byte loads, 32 sums are then added over 32 lanes in 31 shuffles,
// lane l ends with feature l / 8 of row l % 8. The order of a sum is that of lanes and depends on i's extent only, so a
// row's bits do not depend on m, on the cluster or on its neighbours.
#pragma once
#include <cmath>
#include <cstdint>

#include "csrc/base/host_device.h"

namespace fi {

constexpr int kMlpLayers = 16, kMlpRows = 8, kMlpFeatures = 4, kMlpWarps = 8;

enum class MlpAct : int { none, relu, gelu, tanh, sigmoid, silu };

struct MlpLayer {
  const void *weights = nullptr, *bias = nullptr;  // [out, ld], zeros from `in` on; [out] or null
  int in = 0, out = 0;
  MlpAct act = MlpAct::none;
};
enum class MlpType : int { f32, f16, bf16 };

struct Mlp {
  const void* x = nullptr;  // [m, layers[0].in]
  void* y = nullptr;        // [m, layers[count - 1].out]
  int64_t m = 0;
  MlpType type = MlpType::f32;
  int count = 0;
  MlpLayer layers[kMlpLayers];
};

// Features are held and computed in eights; the ones beyond `out` are 0, so that a layer may read whole vectors.
FI_HD int mlp_padded(int features) { return (features + 7) / 8 * 8; }

FI_HD int mlp_width(const Mlp& p) {
  int width = mlp_padded(p.layers[0].in);
  for (int l = 0; l < p.count; ++l) {
    const int out = mlp_padded(p.layers[l].out);
    width = out > width ? out : width;
  }
  return width;
}

// The first feature of the i-th group of a warp; groups are dealt over warps of all blocks.
FI_HD int mlp_feature(int rank, int warp, int blocks, int i) {
  return kMlpFeatures * (rank * kMlpWarps + warp + i * blocks * kMlpWarps);
}

// Blocks of a cluster: as many as the widest layer's groups keep busy, while the chip has SMs for the clusters of all
// rows (bits do not depend on it).
FI_HD int mlp_blocks(const Mlp& p) {
  const int groups = mlp_width(p) / kMlpFeatures;
  const int64_t tiles = (p.m + kMlpRows - 1) / kMlpRows;
  int blocks = 1;
  while (blocks < 8 && blocks * kMlpWarps < groups && 2 * blocks * tiles <= 132) blocks *= 2;
  return blocks;
}

FI_HD float mlp_activate(float v, MlpAct act) {
  switch (act) {
    case MlpAct::relu:
      return v > 0 ? v : (v != v ? v : 0.0f);
    case MlpAct::gelu:
      return 0.5f * v * (1.0f + erff(v * 0.70710678f));
    case MlpAct::tanh:
      return tanhf(v);
    case MlpAct::sigmoid:
      return 1.0f / (1.0f + expf(-v));
    case MlpAct::silu:
      return v / (1.0f + expf(-v));
    default:
      return v;
  }
}

void mlp(const Mlp&, void* stream);
// The same on the host in the kernel's order; float32 only. Every output is written exactly once, or this throws.
void mlp_on_host(const Mlp&);

}  // namespace fi
