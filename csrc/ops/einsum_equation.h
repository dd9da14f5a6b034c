// SPDX-License-Identifier: Apache-2.0
// An einsum equation with its operands' shapes: labels become numbers, the ellipsis becomes labels of its own.
#pragma once
#include <span>
#include <string>
#include <vector>

#include "csrc/base/shape.h"

namespace fi {

struct EinsumEquation {
  std::vector<std::vector<int>> terms;  // per operand: the label of each axis (one may occur twice: a diagonal)
  std::vector<int> output;              // labels, each once
  std::vector<int64_t> extent;          // per label; 1 broadcasts within an ellipsis
};

// Throws ModelError for a malformed equation, InputError for shapes that do not fit it.
EinsumEquation parse_einsum(const std::string& equation, std::span<const Shape> shapes);

}  // namespace fi
