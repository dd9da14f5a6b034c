// SPDX-License-Identifier: Apache-2.0
// pybind11 exports only: specifications in, arrays in and out.
#include <pybind11/stl.h>

#include "csrc/base/cpu.h"
#include "csrc/engine/check.h"
#include "csrc/engine/describe.h"
#include "csrc/engine/executor.h"
#include "csrc/python/arrays.h"
#include "csrc/python/quick.h"
#include "kernels/peak/peak.h"

namespace py = pybind11;

namespace fi {
namespace {

Attribute attribute_of(const py::handle& pair, const std::string& name) {
  const auto kind = py::cast<std::string>(pair[py::int_(0)]);
  const py::object value = pair[py::int_(1)];
  if (kind == "i") return py::cast<int64_t>(value);
  if (kind == "f") return py::cast<float>(value);
  if (kind == "s") return py::cast<std::string>(value);
  if (kind == "ints") return py::cast<std::vector<int64_t>>(value);
  if (kind == "floats") return py::cast<std::vector<float>>(value);
  if (kind == "strings") return py::cast<std::vector<std::string>>(value);
  if (kind == "tensor") return to_tensor(value, false);
  if (kind == "graph") return GraphRef{py::cast<int>(value)};
  throw ModelError("attribute '" + name + "' has unknown kind '" + kind + "'");
}

Port port_of(const py::dict& d) {
  Port p;
  p.value = py::cast<int>(d["value"]);
  p.name = py::cast<std::string>(d["name"]);
  p.dtype = static_cast<DType>(py::cast<int>(d["dtype"]));
  if (!d["dims"].is_none()) {
    p.ranked = true;
    for (const py::handle& dim : py::list(d["dims"])) {
      const bool fixed = py::isinstance<py::int_>(dim);
      p.extents.push_back(fixed ? py::cast<int64_t>(dim) : -1);
      p.symbols.push_back(fixed ? std::string() : py::cast<std::string>(py::str(dim)));
    }
    check_model(p.extents.size() <= kMaxRank, "'", p.name, "' has rank ", p.extents.size(), "; at most ", kMaxRank,
                " is supported");
  }
  if (d.contains("ranges"))
    for (const auto& [symbol, range] : py::cast<py::dict>(d["ranges"])) {
      Port::Range& r = p.ranges[py::cast<std::string>(symbol)];
      const py::sequence bounds = py::cast<py::sequence>(range);
      r.least = py::cast<int64_t>(bounds[0]);
      if (!bounds[1].is_none()) r.greatest = py::cast<int64_t>(bounds[1]);
    }
  return p;
}

Constant constant_of(const py::dict& d) {
  Constant c;
  c.value = py::cast<int>(d["value"]);
  if (d.contains("dense")) {
    c.dense = to_tensor(d["dense"], false);
    c.desc = c.dense.desc;
  } else {
    const auto dims = py::cast<std::vector<int64_t>>(d["shape"]);
    c.desc = {static_cast<DType>(py::cast<int>(d["dtype"])), Shape(dims.begin(), dims.end())};
    c.desc.bytes();
  }
  if (d.contains("packed"))
    for (const auto& [layout, array] : py::cast<py::dict>(d["packed"])) {
      Tensor t = to_tensor(array, false);
      const auto name = py::cast<std::string>(layout);
      check_model(reinterpret_cast<uintptr_t>(t.data) % kAlign == 0, "packed constant is not aligned to 64 bytes");
      c.packed_bytes[name] = t.desc.bytes();
      c.packed[name] = std::shared_ptr<void>(t.owner, t.data);
    }
  return c;
}

Node node_of(const py::dict& d) {
  Node n;
  n.op = py::cast<std::string>(d["op"]);
  n.domain = py::cast<std::string>(d["domain"]);
  n.name = py::cast<std::string>(d["name"]);
  n.inputs = py::cast<std::vector<int>>(d["inputs"]);
  n.outputs = py::cast<std::vector<int>>(d["outputs"]);
  for (const auto& [key, value] : py::cast<py::dict>(d["attrs"])) {
    const auto name = py::cast<std::string>(key);
    n.attributes.items[name] = attribute_of(value, name);
  }
  return n;
}

std::shared_ptr<Program> make_program(const py::dict& d, const py::object& fallback, bool strict) {
  ProgramSpec spec;
  spec.n_values = py::cast<int>(d["n_values"]);
  for (const py::handle& p : py::list(d["inputs"])) spec.inputs.push_back(port_of(py::cast<py::dict>(p)));
  for (const py::handle& p : py::list(d["outputs"])) spec.outputs.push_back(port_of(py::cast<py::dict>(p)));
  for (const py::handle& c : py::list(d["constants"])) spec.constants.push_back(constant_of(py::cast<py::dict>(c)));
  for (const py::handle& n : py::list(d["nodes"])) spec.nodes.push_back(node_of(py::cast<py::dict>(n)));
  for (const py::handle& s : py::list(d["subprograms"]))
    spec.subprograms.push_back(py::cast<std::shared_ptr<Program>>(s));
  Fallback call;
  if (!fallback.is_none()) {
    Tensor held = opaque(fallback);  // released with the GIL held, whoever drops the program
    call = [held](int index, std::span<const Tensor> inputs) {
      py::gil_scoped_acquire gil;
      py::list given;
      for (const Tensor& t : inputs) {
        if (!t || t.desc.dtype == DType::opaque) {
          given.append(to_object(t));
          continue;
        }
        Tensor borrowed = t;
        borrowed.owner = nullptr;  // copies: arena memory is overwritten while Python may still hold the array
        given.append(to_object(borrowed));
      }
      const auto function = py::reinterpret_borrow<py::object>(static_cast<PyObject*>(held.data));
      std::vector<Tensor> results;
      for (const py::handle& r : py::list(function(index, given))) results.push_back(to_tensor(r, false));
      return results;
    };
  }
  py::gil_scoped_release unlocked;
  return std::make_shared<Program>(std::move(spec), std::move(call), strict);
}

// Constants as they are held now, for saving: dense array or dtype and shape, and packed forms.
py::list held_constants(const Program& p) {
  py::list out;
  for (const Constant& c : p.constants) {
    py::dict d;
    d["value"] = c.value;
    d["dtype"] = static_cast<int>(c.desc.dtype);
    d["shape"] = std::vector<int64_t>(c.desc.shape.begin(), c.desc.shape.end());
    if (c.dense) d["dense"] = to_object(c.dense);
    py::dict packed;
    for (const auto& [layout, bytes] : c.packed) {
      Tensor t{{DType::u8, Shape{static_cast<int64_t>(c.packed_bytes.at(layout))}}, bytes.get(), bytes};
      packed[py::str(layout)] = to_object(t);
    }
    d["packed"] = packed;
    out.append(d);
  }
  return out;
}

// Of step `index` of a visited segment, -1: of the operator that ends it.
void add_facts(py::dict& d, const Program& p, const Profile& profile, size_t visit, int index) {
  const Segment& s = *profile.visits[visit].segment;
  StepFacts f;
  if (index >= 0) {
    f = facts_of(p, s, static_cast<size_t>(index));
  } else {
    const Segment* next = nullptr;
    for (size_t i = visit + 1; i < profile.visits.size() && !next; ++i)
      if (profile.visits[i].segment->parent.get() == &s) next = profile.visits[i].segment.get();
    f = facts_of_pivot(p, s, next);
  }
  const bool known = f.out.dtype != DType::none;
  d["shape"] = known ? py::cast(std::vector<int64_t>(f.out.shape.begin(), f.out.shape.end())) : py::none();
  d["dtype"] = known ? py::cast(name_of(f.out.dtype)) : py::none();
  d["bytes"] = f.bytes;
  d["weight_bytes"] = f.weight_bytes;
}

py::list profile_list(const Profile& profile) {
  py::list out;
  for (const StepTime& s : profile.steps) {
    const Program& p = *profile.visits[s.visit].program;
    py::dict d;
    d["node"] = s.node;
    d["label"] = s.label;
    d["op"] = s.node >= 0 ? p.nodes[s.node].op : std::string();
    d["kernel"] = s.kernel;
    d["start_ns"] = s.start_ns;
    d["ns"] = s.ns;
    d["flops"] = s.flops;
    d["depth"] = s.depth;
    add_facts(d, p, profile, static_cast<size_t>(s.visit), s.step);
    out.append(d);
  }
  return out;
}

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

py::dict step_dict(const Program& p, int node, const char* kernel, int depth, const Segment& s) {
  py::dict d;
  py::list refusals;
  for (const auto& [n, reason] : s.refusals)
    if (n == node) refusals.append(reason);
  d["node"] = node;
  d["label"] = node >= 0 ? p.label(node) : std::string("output");
  d["op"] = node >= 0 ? p.nodes[node].op : std::string();
  d["kernel"] = kernel;
  d["parts"] = 1;
  d["flops"] = 0.0;
  d["depth"] = depth;
  d["refusals"] = refusals;
  std::string tuned;
  for (const Choice& c : s.choices)
    if (c.node == node && c.tuned)
      tuned += (tuned.empty() ? "" : "; ") + c.problem.substr(0, c.problem.find(' ')) + ": " + c.candidates[c.chosen];
  if (!tuned.empty()) d["tuned"] = tuned;
  return d;
}

void list_choices(const Segment& s, py::list& out) {
  for (const Choice& c : s.choices) {
    py::dict d;
    d["node"] = c.node;
    d["problem"] = c.problem;
    d["candidates"] = c.candidates;
    d["chosen"] = c.chosen;
    out.append(d);
  }
}

void explain_segment(const Program& p, const Profile& profile, size_t visit, py::list& out) {
  const Segment& s = *profile.visits[visit].segment;
  const int depth = profile.visits[visit].depth;
  for (size_t i = 0; i < s.steps.size(); ++i) {
    const Step& step = s.steps[i];
    py::dict d = step_dict(p, step.node, step.kernel, depth, s);
    d["parts"] = step.parts;
    d["flops"] = step.flops;
    add_facts(d, p, profile, visit, static_cast<int>(i));
    out.append(d);
  }
  if (s.end == SegmentEnd::eager) {
    py::dict d = step_dict(p, s.pivot, s.by_fallback ? "reference" : "eager", depth, s);
    add_facts(d, p, profile, visit, -1);
    out.append(d);
  }
}

// expected: (value, type code, extents, whether every call has these).
py::dict findings(const Program& p, const py::list& expected) {
  std::vector<ExpectedValue> values;
  for (const py::handle& entry : expected) {
    const auto [value, code, dims, exact] = py::cast<std::tuple<int, int, std::vector<int64_t>, bool>>(entry);
    if (dims.size() > kMaxRank) continue;
    values.push_back({value, {static_cast<DType>(code), Shape(dims.begin(), dims.end())}, exact});
  }
  const Findings found = check_program(p, values);
  py::list by_reference;
  for (const auto& r : found.by_reference) by_reference.append(py::make_tuple(r.node, r.reason, r.exact));
  py::dict d;
  d["by_reference"] = by_reference;
  d["fault"] = found.fault;
  return d;
}

// Without arrays: the plan of the first segment. With arrays the model runs once and every segment it walks is listed.
py::dict explain(Executor& e, const py::sequence& arrays, bool run_it) {
  const std::vector<Tensor> inputs = tensors_of(arrays);
  std::vector<Desc> descs;
  for (const Tensor& t : inputs) descs.push_back(t.desc);
  const auto first = e.plan(descs);
  Profile profile;
  if (run_it && first->end != SegmentEnd::finished) {
    py::gil_scoped_release unlocked;
    e.run(inputs, &profile);
  } else {
    profile.visits.push_back({nullptr, first, 0});
  }
  py::list steps, choices;
  size_t arena = 0;
  bool finished = false;
  for (size_t i = 0; i < profile.visits.size(); ++i) {
    const Profile::Visit& v = profile.visits[i];
    explain_segment(v.program ? *v.program : e.program(), profile, i, steps);
    if (v.depth == 0) list_choices(*v.segment, choices);
    arena += v.segment->arena_bytes;
    finished = finished || (v.depth == 0 && v.segment->end == SegmentEnd::finished);
  }
  py::dict d;
  d["steps"] = steps;
  d["choices"] = choices;
  d["arena_bytes"] = arena;
  d["finished"] = finished;
  return d;
}

}  // namespace
}  // namespace fi

PYBIND11_MODULE(_core, m) {
  using namespace fi;
  m.doc() = "fastinfer's native engine; use the fastinfer package instead of this module.";
  static PyObject* classes[4];
  const py::module_ errors = py::module_::import("fastinfer.errors");
  const char* names[] = {"FastinferError", "ModelError", "UnsupportedError", "InputError"};
  for (int i = 0; i < 4; ++i) classes[i] = errors.attr(names[i]).cast<py::object>().release().ptr();
  py::register_exception_translator([](std::exception_ptr p) {
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

  check_interrupt = [] {
    py::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
  };

  py::class_<Program, std::shared_ptr<Program>>(m, "Program")
      .def(py::init(&make_program), py::arg("spec"), py::arg("fallback"), py::arg("strict"))
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
      .def("explain", &explain, py::arg("inputs"), py::arg("run_it"))
      .def("trim", &Executor::trim)
      .def("forget_plans", &Executor::forget_plans)
      .def_property_readonly("cached_plans", &Executor::cached_plans)
      .def_property_readonly("cached_bytes", &Executor::cached_bytes)
      .def_property_readonly("threads", &Executor::threads);

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
