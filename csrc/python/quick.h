// SPDX-License-Identifier: Apache-2.0
// The call that most calls are: dense numpy arrays of shapes seen before, in one walk, dense numpy arrays out.
#pragma once
#include <pybind11/pybind11.h>

namespace fi {

// Adds the type `Quick(executor, input_names, output_names)`. Its methods answer None, having done nothing visible, for
// whatever is not such a call, errors included: the caller then takes the general way, which does it or says what is
// wrong. run(dict) gives a dict, call(tuple) an array or a tuple of several.
void add_quick(pybind11::module_& m);

}  // namespace fi
