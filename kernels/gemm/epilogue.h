// SPDX-License-Identifier: Apache-2.0
// What happens to a sum of products before it is stored, shared by gemm, conv and depthwise:
//   y = act(scale * sum + bias + residual)          residual_after = false
//   y = act(scale * sum + bias) + residual          residual_after = true
// The vector code is kernels/gemm/activate.h.
#pragma once
#include <cstdint>

namespace fi {

enum class Activation : int32_t {
  none,
  relu,
  clip,        // min(beta, max(alpha, x))
  leaky_relu,  // x >= 0 ? x : alpha x
  sigmoid,
  tanh,
  silu,          // x sigmoid(x)
  gelu,          // x/2 (1 + erf(x / sqrt 2))
  gelu_tanh,     // x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
  hard_swish,    // x clip(x/6 + 1/2, 0, 1)
  hard_sigmoid,  // clip(alpha x + beta, 0, 1)
  elu,           // x >= 0 ? x : alpha (exp x - 1)
  softplus,      // log(1 + exp x)
  mish,          // x tanh(softplus(x))
  quick_gelu,    // x sigmoid(alpha x)
};

struct Epilogue {
  Activation activation = Activation::none;
  float alpha = 0, beta = 0;  // of the activation
  float scale = 1;
  bool residual_after = false;
};

}  // namespace fi
