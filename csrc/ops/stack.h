// SPDX-License-Identifier: Apache-2.0
// Tensors cut and put together along an axis, for the scans of Loop and Scan.
#pragma once
#include "csrc/ops/op.h"

namespace fi {

// x[..., at, ...] without that axis. Along axis 0 a view, else a copy.
Tensor slice_at(const Tensor& x, int axis, int64_t at);
// The parts along a new axis, in order or reversed. Without parts: an empty tensor after `declared`, which describes
// one.
Tensor stack(const std::vector<Tensor>& parts, int64_t axis, bool reversed, const Desc& declared);

}  // namespace fi
