// SPDX-License-Identifier: Apache-2.0
// pybind11 exports only: specifications in, arrays in and out.
#include <pybind11/stl.h>

#include "csrc/base/cpu.h"
#include "csrc/base/exceptions.h"
#include "csrc/engine/memory.h"
#include "csrc/python/arrays.h"
#include "csrc/python/quick.h"
#include "csrc/python/reports.h"
#include "csrc/python/specs.h"
#include "kernels/peak/peak.h"

namespace py = pybind11;

namespace fi {
namespace {

std::vector<Tensor> tensors_of(const py::sequence& arrays) {
  std::vector<Tensor> out;
  out.reserve(py::len(arrays));
  for (const py::handle& a : arrays) out.push_back(to_tensor(a, false));
  return out;
}

py::list run(Executor& e, const py::sequence& arrays, Profile* profile) {
  const std::vector<Tensor> inputs = tensors_of(arrays);
  std::vector<Tensor> outputs;
  {
    py::gil_scoped_release unlocked;
    outputs = e.run(inputs, profile);
  }
  py::list result;
  for (const Tensor& t : outputs) result.append(to_object(t));
  return result;
}

}  // namespace
}  // namespace fi

PYBIND11_MODULE(_core, m) {
  using namespace fi;
  m.doc() = "fastinfer's native engine; use the fastinfer package instead of this module.";
  translate_exceptions();

  check_interrupt = [] {
    py::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
  };

  py::class_<Program, std::shared_ptr<Program>>(m, "Program")
      .def(py::init(&make_program), py::arg("spec"), py::arg("fallback"), py::arg("strict"),
           py::arg("shapes_only") = false)
      .def("constants", &held_constants)
      .def_property_readonly("fallback_reasons", [](const Program& p) { return p.fallback_reasons; })
      .def("label", &Program::label)
      .def("check", &findings, py::arg("expected"))
      .def_property_readonly("subprograms", [](const Program& p) { return p.subprograms; })
      .def("set_tuning", &Program::set_tuning, py::arg("table"))
      .def_property_readonly("isa", [](const Program& p) { return name_of(p.isa); });

  py::class_<Executor>(m, "Executor")
      .def(py::init([](std::shared_ptr<Program> p, int threads, size_t plans) {
             return std::make_unique<Executor>(std::move(p), threads, plans);
           }),
           py::arg("program"), py::arg("threads"), py::arg("plans") = 64)
      .def("run", [](Executor& e, const py::sequence& inputs) { return run(e, inputs, nullptr); })
      .def("profile",
           [](Executor& e, const py::sequence& inputs) {
             Profile profile;
             py::list outputs = run(e, inputs, &profile);
             return py::make_tuple(outputs, profile_list(profile));
           })
      .def(
          "explain",
          [](Executor& e, const py::sequence& inputs, bool run_it) { return explain(e, tensors_of(inputs), run_it); },
          py::arg("inputs"), py::arg("run_it"))
      .def("shapes", &shapes, py::arg("inputs"))
      .def("trim", &Executor::trim)
      .def("forget_plans", &Executor::forget_plans)
      .def_property_readonly("cached_plans", &Executor::cached_plans)
      .def_property_readonly("cached_bytes", &Executor::cached_bytes)
      .def_property_readonly("threads", &Executor::threads);

  py::class_<ArenaLayout>(m, "ArenaLayout")
      .def(py::init<>())
      .def("take", &ArenaLayout::take, py::arg("bytes"))
      .def(
          "release", [](ArenaLayout& a, size_t at, size_t bytes) { a.release(at, ArenaLayout::rounded(bytes)); },
          py::arg("at"), py::arg("bytes"))
      .def_property_readonly("bytes", &ArenaLayout::bytes);

  add_quick(m);
  m.def("native_ops", &native_ops);
  m.def("active_isa", [] { return name_of(active_isa()); });
  m.def("detected_isa", [] { return name_of(detected_isa()); });
  m.def("force_isa", [](const std::string& name) { force_isa(parse_isa(name)); });
  m.def("usable_cores", &usable_cores);
  m.def("caches", [] { return py::make_tuple(caches().l1, caches().l2, caches().l3); });
  m.def(
      "measure_peak",
      [](int threads) {
        check(threads >= 1 && threads <= 1024, "threads=", threads, "; needed: 1 to 1024");
        Peak peak;
        {
          py::gil_scoped_release unlocked;
          peak = measure_peak(threads);
        }
        py::dict d;
        d["gflops"] = peak.gflops;
        d["read_gbs"] = peak.read_gbs;
        if (peak.bf16_gflops > 0) d["bf16_gflops"] = peak.bf16_gflops;
        if (peak.int8_gops > 0) d["int8_gops"] = peak.int8_gops;
        d["kernel"] = peak.kernel;
        d["threads"] = threads;
        return d;
      },
      py::arg("threads"));
  m.def(
      "measure_read",
      [](size_t bytes, int threads) {
        check(threads >= 1 && threads <= 1024, "threads=", threads, "; needed: 1 to 1024");
        check(bytes <= (size_t{1} << 32), "bytes=", bytes, "; needed: at most 4 GiB");
        py::gil_scoped_release unlocked;
        return measure_read(bytes, threads);
      },
      py::arg("bytes"), py::arg("threads"));
  m.def("dtype_code", [](const py::dtype& d) { return static_cast<int>(dtype_of(d)); });
  m.def("numpy_dtype", [](int code) { return numpy_dtype(static_cast<DType>(code)); });
}
