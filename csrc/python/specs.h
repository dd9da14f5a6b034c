// SPDX-License-Identifier: Apache-2.0
// Programs out of plain data, and back.
#pragma once
#include <pybind11/pybind11.h>

#include <memory>

#include "csrc/engine/program.h"

namespace fi {

// d: what program.py calls the specification. fallback: runs a node by reference, or None.
std::shared_ptr<Program> make_program(const pybind11::dict& d, const pybind11::object& fallback, bool strict,
                                      bool shapes_only);
// Constants as they are held now, for saving: dense array or dtype and shape, and packed forms.
pybind11::list held_constants(const Program&);

}  // namespace fi
