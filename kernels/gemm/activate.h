// SPDX-License-Identifier: Apache-2.0
// The activations of kernels/gemm/epilogue.h over vectors, for the epilogues of gemm, conv and depthwise.
#pragma once
#include "kernels/gemm/epilogue.h"
#include "kernels/simd/math.h"

namespace fi::FI_ISA {

template <Activation A>
FI_INLINE VF activate(VF x, VF alpha, VF beta) {
  if constexpr (A == Activation::relu) return relu(x);
  if constexpr (A == Activation::clip) return clamp(x, alpha, beta);
  if constexpr (A == Activation::leaky_relu) return leaky_relu(x, alpha);
  if constexpr (A == Activation::sigmoid) return sigmoid(x);
  if constexpr (A == Activation::tanh) return tanh(x);
  if constexpr (A == Activation::silu) return silu(x);
  if constexpr (A == Activation::gelu) return gelu(x);
  if constexpr (A == Activation::gelu_tanh) return gelu_tanh(x);
  if constexpr (A == Activation::hard_swish) return hard_swish(x);
  if constexpr (A == Activation::hard_sigmoid) return hard_sigmoid(x, alpha, beta);
  if constexpr (A == Activation::elu) return elu(x, alpha);
  if constexpr (A == Activation::softplus) return softplus(x);
  if constexpr (A == Activation::mish) return mish(x);
  if constexpr (A == Activation::quick_gelu) return quick_gelu(x, alpha);
  return x;
}

// Calls f.template operator()<A>() for the activation that is asked for.
template <class F>
FI_INLINE void with_activation(Activation a, F f) {
  switch (a) {
    case Activation::none:
      return f.template operator()<Activation::none>();
    case Activation::relu:
      return f.template operator()<Activation::relu>();
    case Activation::clip:
      return f.template operator()<Activation::clip>();
    case Activation::leaky_relu:
      return f.template operator()<Activation::leaky_relu>();
    case Activation::sigmoid:
      return f.template operator()<Activation::sigmoid>();
    case Activation::tanh:
      return f.template operator()<Activation::tanh>();
    case Activation::silu:
      return f.template operator()<Activation::silu>();
    case Activation::gelu:
      return f.template operator()<Activation::gelu>();
    case Activation::gelu_tanh:
      return f.template operator()<Activation::gelu_tanh>();
    case Activation::hard_swish:
      return f.template operator()<Activation::hard_swish>();
    case Activation::hard_sigmoid:
      return f.template operator()<Activation::hard_sigmoid>();
    case Activation::elu:
      return f.template operator()<Activation::elu>();
    case Activation::softplus:
      return f.template operator()<Activation::softplus>();
    case Activation::mish:
      return f.template operator()<Activation::mish>();
    case Activation::quick_gelu:
      return f.template operator()<Activation::quick_gelu>();
  }
}

// Activations that are a clamp cost two instructions and stay in registers; the others go through a buffer in L1, so
// that their code exists once and not in every register tile.
FI_INLINE bool is_clamp(Activation a) {
  return a == Activation::relu || a == Activation::clip || a == Activation::none;
}

// y[i] = act(x[i]) + residual[i] (residual may be null), i < n. Same bits for any n and alignment.
static __attribute__((noinline)) void activate_row(const Epilogue& e, const float* x, const float* residual, float* y,
                                                   int64_t n) {
  const VF alpha = set1(e.alpha), beta = set1(e.beta);
  with_activation(e.activation, [&]<Activation A>() __attribute__((always_inline)) {
    int64_t i = 0;
    for (; i + VF::W <= n; i += VF::W) {
      VF v = activate<A>(load(x + i), alpha, beta);
      if (residual) v = v + load(residual + i);
      store(y + i, v);
    }
    if (const int tail = static_cast<int>(n - i)) {
      VF v = activate<A>(load(x + i, tail), alpha, beta);
      if (residual) v = v + load(residual + i, tail);
      store(y + i, v, tail);
    }
  });
}

}  // namespace fi::FI_ISA
