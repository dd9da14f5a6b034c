// SPDX-License-Identifier: Apache-2.0
// What Conv and ConvTranspose share: constant weights packed at build, others by a step, and the way between layouts.
#pragma once
#include "csrc/ops/spatial.h"
#include "kernels/conv/conv.h"

namespace fi {

// x in channels-last form: the operand itself, or a transpose into scratch.
Operand channels_last_form(PlanContext&, const Image&, Operand x, DType);
// Where an operator that works channels last writes its output 0: the output itself or scratch.
struct LayoutOutput {
  Operand y;        // channels last
  Operand final_y;  // the output
  Image image;
  DType dtype;
  int64_t row;  // elements from one pixel of y to the next: the channels, or more if `rows` allows it
  LayoutOutput(PlanContext&, const Image&, DType, bool rows = false);
  void finish(PlanContext&) const;  // appends the transpose back, if there is one
};

// Convolution weights on the GEMM family's panels. Constant ones are packed once per program.
class ConvPanels {
 public:
  ConvPanels() = default;
  // groups: of the node. Does nothing unless input `w` is a constant float32 of rank 3 to 5.
  ConvPanels(BuildContext&, int w, int64_t groups, bool transposed, const WindowAttributes&);
  const void* constant() const { return packed_; }  // the panels, if known at build
  // Appends a packing step if the weights are not constant.
  Operand operand(PlanContext&, int w, const ConvWeights&) const;

 private:
  const void* packed_ = nullptr;
};

// Conv of float64: input, weight and bias as in ONNX.
void plan_conv_f64(PlanContext&, const WindowAttributes&, int64_t groups);

// [O, I / g, k...] or transposed [I, O / g, k...] → extents on three axes; throws InputError if it cannot be.
ConvWeights conv_weights(const Shape& w, int64_t groups, bool transposed, const WindowAttributes&, int nr);

}  // namespace fi
