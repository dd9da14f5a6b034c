// SPDX-License-Identifier: Apache-2.0
// The activation attributes of the fused operators (docs/architecture.md, "The domain fastinfer").
#pragma once
#include <limits>

#include "csrc/ops/attributes.h"
#include "kernels/gemm/epilogue.h"

namespace fi {

// Reads activation, activation_alpha, activation_beta and residual_after. A parameter that is left out has the default
// of the ONNX operator of that name.
inline Epilogue read_epilogue(const Attributes& attributes) {
  constexpr float inf = std::numeric_limits<float>::infinity();
  struct Row {
    const char* name;
    Activation kind;
    float alpha, beta;
  };
  static constexpr Row rows[] = {
      {"", Activation::none, 0, 0},
      {"relu", Activation::relu, 0, 0},
      {"clip", Activation::clip, -inf, inf},
      {"leaky_relu", Activation::leaky_relu, 0.01f, 0},
      {"sigmoid", Activation::sigmoid, 0, 0},
      {"tanh", Activation::tanh, 0, 0},
      {"silu", Activation::silu, 0, 0},
      {"gelu", Activation::gelu, 0, 0},
      {"gelu_tanh", Activation::gelu_tanh, 0, 0},
      {"hard_swish", Activation::hard_swish, 0, 0},
      {"hard_sigmoid", Activation::hard_sigmoid, 0.2f, 0.5f},
      {"elu", Activation::elu, 1, 0},
      {"softplus", Activation::softplus, 0, 0},
      {"mish", Activation::mish, 0, 0},
      {"quick_gelu", Activation::quick_gelu, 1.702f, 0},
  };
  const std::string name = attributes.s("activation", "");
  for (const Row& row : rows) {
    if (name != row.name) continue;
    Epilogue e;
    e.activation = row.kind;
    e.alpha = attributes.f("activation_alpha", row.alpha);
    e.beta = attributes.f("activation_beta", row.beta);
    e.residual_after = attributes.i("residual_after", 0) != 0;
    return e;
  }
  throw ModelError("unknown activation '" + name + "'");
}

}  // namespace fi
