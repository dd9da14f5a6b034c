// SPDX-License-Identifier: Apache-2.0
// error.h's classes → those of fastinfer.errors, for extension modules: the only header here that knows Python.
#pragma once
#include <pybind11/pybind11.h>

#include "csrc/base/error.h"

namespace fi {

// Of the module that calls it, and no other: each has classes of its own.
inline void translate_exceptions() {
  namespace py = pybind11;
  static PyObject* classes[4];
  const py::module_ errors = py::module_::import("fastinfer.errors");
  const char* names[] = {"FastinferError", "ModelError", "UnsupportedError", "InputError"};
  for (int i = 0; i < 4; ++i) classes[i] = errors.attr(names[i]).cast<py::object>().release().ptr();
  py::register_local_exception_translator([](std::exception_ptr p) {
    try {
      if (p) std::rethrow_exception(p);
    } catch (const UnsupportedError& e) {
      PyErr_SetString(classes[2], e.what());
    } catch (const ModelError& e) {
      PyErr_SetString(classes[1], e.what());
    } catch (const InputError& e) {
      PyErr_SetString(classes[3], e.what());
    } catch (const Error& e) {
      PyErr_SetString(classes[0], e.what());
    }
  });
}

}  // namespace fi
