// SPDX-License-Identifier: Apache-2.0
#include "csrc/ops/rnn_attributes.h"

namespace fi {
namespace {

struct Function {
  const char* name;
  RnnFunction kind;
  int parameters;  // how many of alpha, beta it has
  float alpha, beta;
};
constexpr Function kFunctions[] = {
    {"sigmoid", RnnFunction::sigmoid, 0, 0, 0},
    {"tanh", RnnFunction::tanh, 0, 0, 0},
    {"relu", RnnFunction::relu, 0, 0, 0},
    {"leakyrelu", RnnFunction::leaky_relu, 1, 0.01f, 0},
    {"thresholdedrelu", RnnFunction::thresholded_relu, 1, 1, 0},
    {"scaledtanh", RnnFunction::scaled_tanh, 2, 1, 1},
    {"hardsigmoid", RnnFunction::hard_sigmoid, 2, 0.2f, 0.5f},
    {"elu", RnnFunction::elu, 1, 1, 0},
    {"softsign", RnnFunction::softsign, 0, 0, 0},
    {"softplus", RnnFunction::softplus, 0, 0, 0},
    {"affine", RnnFunction::affine, 2, 1, 0},
};

const Function& function_of(std::string name) {
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
  for (const Function& f : kFunctions)
    if (name == f.name) return f;
  throw ModelError("unknown activation '" + name + "'");
}

}  // namespace

RnnAttributes::RnnAttributes(const Attributes& a, RnnKind k) : kind(k) {
  const std::string direction = a.s("direction", "forward");
  check_model(direction == "forward" || direction == "reverse" || direction == "bidirectional", "direction '",
              direction, "' is not one of forward, reverse, bidirectional");
  directions = direction == "bidirectional" ? 2 : 1;
  backwards = direction == "reverse";
  hidden = a.i("hidden_size", -1);
  batch_first = a.i("layout", 0) != 0;
  linear_before_reset = a.i("linear_before_reset", 0) != 0;
  input_forget = a.i("input_forget", 0) != 0;
  clip = a.f("clip", 0.f);
  check_model(clip >= 0, "clip ", clip, " is negative");

  const int per_direction = k == RnnKind::lstm ? 3 : k == RnnKind::gru ? 2 : 1;
  std::vector<std::string> names = a.strings("activations");
  if (names.empty())
    for (int64_t d = 0; d < directions; ++d) {
      if (k != RnnKind::rnn) names.push_back("sigmoid");
      names.push_back("tanh");
      if (k == RnnKind::lstm) names.push_back("tanh");
    }
  check_model(static_cast<int64_t>(names.size()) == directions * per_direction, names.size(), " activations, needed ",
              directions * per_direction);
  // Each function that has a parameter takes the next of its list.
  const std::vector<float> alphas = a.floats("activation_alpha"), betas = a.floats("activation_beta");
  size_t next_alpha = 0, next_beta = 0;
  for (size_t i = 0; i < names.size(); ++i) {
    const Function& f = function_of(names[i]);
    RnnActivation& out = activation[i / per_direction][i % per_direction];
    out = {f.kind, f.alpha, f.beta};
    if (f.parameters > 0 && next_alpha < alphas.size()) out.alpha = alphas[next_alpha++];
    if (f.parameters > 1 && next_beta < betas.size()) out.beta = betas[next_beta++];
  }
}

RnnProblem RnnAttributes::problem(int64_t n) const {
  RnnProblem q;
  q.kind = kind;
  q.directions = n;
  q.reverse[0] = backwards;
  q.reverse[1] = true;
  q.input_forget = input_forget;
  q.linear_before_reset = linear_before_reset;
  q.clip = clip;
  std::copy(&activation[0][0], &activation[0][0] + 6, &q.activation[0][0]);
  return q;
}

}  // namespace fi
