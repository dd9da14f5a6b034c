// SPDX-License-Identifier: Apache-2.0
// Contract and reasons: mlp.cuh.
#include <cooperative_groups.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <type_traits>
#include <vector>

#include "csrc/base/launch.h"
#include "kernels/tiny/mlp.cuh"

namespace fi {
namespace {

namespace cg = cooperative_groups;

constexpr int kThreads = kMlpWarps * 32;
constexpr unsigned kShared = 227 << 10;

template <class T>
struct Vector {
  static constexpr int kCount = 16 / sizeof(T);
  float v[kCount];
  __device__ __forceinline__ void load(const T* p) {
    const uint4 raw = *reinterpret_cast<const uint4*>(p);
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if constexpr (sizeof(T) == 4) {
        v[i] = __uint_as_float(words[i]);
      } else if constexpr (std::is_same_v<T, __nv_bfloat16>) {
        v[2 * i] = __uint_as_float(words[i] << 16);
        v[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
      } else {
        const float2 two = __half22float2(*reinterpret_cast<const __half2*>(&words[i]));
        v[2 * i] = two.x;
        v[2 * i + 1] = two.y;
      }
    }
  }
};

// Lane l: the sum over all lanes of v[l]. Recursive, as an index that is not a constant would put v into local memory.
template <int kHalf = 16>
__device__ __forceinline__ float sum_each(float (&v)[32]) {
  const bool upper = threadIdx.x & kHalf;
#pragma unroll
  for (int i = 0; i < kHalf; ++i) {
    const float keep = upper ? v[i + kHalf] : v[i], give = upper ? v[i] : v[i + kHalf];
    v[i] = keep + __shfl_xor_sync(0xffffffffu, give, kHalf);
  }
  if constexpr (kHalf > 1)
    return sum_each<kHalf / 2>(v);
  else
    return v[0];
}

// Lane l: feature `first` + l / 8 of row l % 8, without bias. rows: [8][width] in shared memory.
template <class T>
__device__ __forceinline__ float products(const MlpLayer& layer, const float* rows, int width, int first) {
  constexpr int kCount = Vector<T>::kCount;
  const int ld = mlp_padded(layer.in);
  const T* weights = static_cast<const T*>(layer.weights);
  float sums[32] = {};
  for (int i = threadIdx.x % 32 * kCount; i < ld; i += 32 * kCount) {
    Vector<T> w[kMlpFeatures];
#pragma unroll
    for (int f = 0; f < kMlpFeatures; ++f) {
      const int feature = first + f < layer.out ? first + f : layer.out - 1;
      w[f].load(weights + static_cast<int64_t>(feature) * ld + i);
    }
#pragma unroll
    for (int r = 0; r < kMlpRows; ++r)
#pragma unroll
      for (int j = 0; j < kCount; j += 4) {
        const float4 x = *reinterpret_cast<const float4*>(rows + r * width + i + j);
#pragma unroll
        for (int f = 0; f < kMlpFeatures; ++f) {
          float& sum = sums[f * kMlpRows + r];
          sum = fmaf(w[f].v[j + 3], x.w, fmaf(w[f].v[j + 2], x.z, fmaf(w[f].v[j + 1], x.y, fmaf(w[f].v[j], x.x, sum))));
        }
      }
  }
  return sum_each(sums);
}

template <class T>
__device__ void ask_for_weights(const Mlp& p) {
  for (int l = 0; l < p.count; ++l) {
    const MlpLayer& layer = p.layers[l];
    const int64_t bytes = static_cast<int64_t>(layer.out) * mlp_padded(layer.in) * sizeof(T);
    const char* from = static_cast<const char*>(layer.weights);
    for (int64_t at = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * 128; at < bytes;
         at += static_cast<int64_t>(gridDim.x) * kThreads * 128)
      asm volatile("prefetch.global.L2 [%0];" ::"l"(from + at));
  }
}

// Block (rank of the cluster, tile of rows).
template <class T>
__global__ void __launch_bounds__(kThreads, 1) mlp_kernel(const __grid_constant__ Mlp p) {
  extern __shared__ __align__(16) float shared[];
  cg::cluster_group cluster = cg::this_cluster();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, blocks = gridDim.x, width = mlp_width(p);
  const int64_t row0 = static_cast<int64_t>(blockIdx.y) * kMlpRows;
  if (blockIdx.y == 0) ask_for_weights<T>(p);
  let_next_begin();
  wait_for_previous();
  const int in = p.layers[0].in, padded = mlp_padded(in);
  for (int i = threadIdx.x; i < kMlpRows * padded; i += kThreads) {
    const int row = i / padded, column = i % padded;
    const bool valid = row0 + row < p.m && column < in;
    shared[row * width + column] =
        valid ? static_cast<float>(static_cast<const T*>(p.x)[(row0 + row) * in + column]) : 0;
  }
  cluster.sync();  // all blocks run: their shared memory can be written
  for (int l = 0; l < p.count; ++l) {
    const MlpLayer& layer = p.layers[l];
    const float* from = shared + (l % 2) * kMlpRows * width;
    float* to = shared + ((l + 1) % 2) * kMlpRows * width;
    for (int i = 0;; ++i) {
      const int first = mlp_feature(blockIdx.x, warp, blocks, i);
      if (first >= mlp_padded(layer.out)) break;
      const int feature = first + lane / kMlpRows, row = lane % kMlpRows;
      float v = products<T>(layer, from, width, first);
      const bool valid = feature < layer.out;
      if (valid && layer.bias) v += static_cast<float>(static_cast<const T*>(layer.bias)[feature]);
      v = valid ? mlp_activate(v, layer.act) : 0;
      if (l + 1 < p.count) {
        for (int b = 0; b < blocks; ++b) cluster.map_shared_rank(to, b)[row * width + feature] = v;
      } else if (valid && row0 + row < p.m) {
        static_cast<T*>(p.y)[(row0 + row) * layer.out + feature] = static_cast<T>(v);
      }
    }
    if (l + 1 < p.count) cluster.sync();
  }
}

void check_mlp(const Mlp& p) {
  check(p.count >= 1 && p.count <= kMlpLayers, "mlp: ", p.count, " layers; needed: 1 to ", kMlpLayers);
  for (int l = 0; l < p.count; ++l) {
    const MlpLayer& layer = p.layers[l];
    check(layer.in > 0 && layer.out > 0 && (l == 0 || layer.in == p.layers[l - 1].out), "mlp: layer ", l, " takes ",
          layer.in, " features to ", layer.out);
    check(reinterpret_cast<uintptr_t>(layer.weights) % 16 == 0, "mlp: layer ", l, "'s weights are not aligned to 16");
  }
}

template <class T>
void run(const Mlp& p, void* stream) {
  const int blocks = mlp_blocks(p), width = mlp_width(p);
  const int64_t shared = int64_t{2} * kMlpRows * width * 4, tiles = (p.m + kMlpRows - 1) / kMlpRows;
  check(shared <= kShared && tiles <= 65535, "mlp: ", width, " features, ", p.m, " rows; needed: at most ",
        kShared / (2 * kMlpRows * 4), " features and ", 65535 * kMlpRows, " rows");
  launch(mlp_kernel<T>, p,
         {dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(tiles)), dim3(kThreads),
          static_cast<unsigned>(shared), static_cast<unsigned>(blocks), stream, true},
         "mlp: ", p.count, " layers of at most ", width, " features, ", p.m, " rows");
}

}  // namespace

void mlp(const Mlp& p, void* stream) {
  check_mlp(p);
  if (p.m == 0) return;
  switch (p.type) {
    case MlpType::f32:
      return run<float>(p, stream);
    case MlpType::f16:
      return run<__half>(p, stream);
    case MlpType::bf16:
      return run<__nv_bfloat16>(p, stream);
  }
}

void mlp_on_host(const Mlp& p) {
  check_mlp(p);
  const int blocks = mlp_blocks(p), width = mlp_width(p);
  for (int64_t row = 0; row < p.m; ++row) {
    std::vector<float> from(width, 0.0f), to(width, NAN);
    for (int i = 0; i < p.layers[0].in; ++i) from[i] = static_cast<const float*>(p.x)[row * p.layers[0].in + i];
    for (int l = 0; l < p.count; ++l) {
      const MlpLayer& layer = p.layers[l];
      const int ld = mlp_padded(layer.in);
      std::vector<int> written(width, 0);
      for (int rank = 0; rank < blocks; ++rank)
        for (int warp = 0; warp < kMlpWarps; ++warp)
          for (int i = 0; mlp_feature(rank, warp, blocks, i) < mlp_padded(layer.out); ++i)
            for (int f = 0; f < kMlpFeatures; ++f) {
              const int feature = mlp_feature(rank, warp, blocks, i) + f;
              ++written[feature];
              to[feature] = 0;
              if (feature >= layer.out) continue;
              const float* w = static_cast<const float*>(layer.weights) + static_cast<int64_t>(feature) * ld;
              float lanes[32] = {};
              for (int k = 0; k < ld; ++k) lanes[k / 4 % 32] = std::fma(w[k], from[k], lanes[k / 4 % 32]);
              for (int half = 16; half > 0; half /= 2)
                for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
              const float bias = layer.bias ? static_cast<const float*>(layer.bias)[feature] : 0.0f;
              to[feature] = mlp_activate(lanes[0] + bias, layer.act);
            }
      for (int f = 0; f < mlp_padded(layer.out); ++f)
        if (written[f] != 1)
          throw Error(words("mlp: layer ", l, ", feature ", f, " is written ", written[f], " times"));
      from.swap(to);
    }
    const int out = p.layers[p.count - 1].out;
    for (int f = 0; f < out; ++f) static_cast<float*>(p.y)[row * out + f] = from[f];
  }
}

}  // namespace fi
