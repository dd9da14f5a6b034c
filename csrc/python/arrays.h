// SPDX-License-Identifier: Apache-2.0
// numpy arrays ↔ tensors, without copies where the array is dense.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "csrc/base/tensor.h"

namespace fi {

DType dtype_of(const pybind11::dtype&);  // none if numpy's type has no counterpart
pybind11::dtype numpy_dtype(DType);
// Views an array (made contiguous if it is not); anything but a numeric array becomes an opaque tensor that holds it.
// None becomes an empty tensor when `none_is_absent`.
Tensor to_tensor(pybind11::handle object, bool none_is_absent);
pybind11::object to_object(const Tensor&);  // shares memory with the tensor through its owner
Tensor opaque(pybind11::object);

}  // namespace fi
