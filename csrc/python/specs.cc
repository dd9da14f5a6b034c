// SPDX-License-Identifier: Apache-2.0
#include "csrc/python/specs.h"

#include <pybind11/stl.h>

#include "csrc/python/arrays.h"

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

// The Python function that runs a node by reference.
Fallback fallback_of(const py::object& function) {
  if (function.is_none()) return {};
  const Tensor held = opaque(function);  // released with the GIL held, whoever drops the program
  return [held](int index, std::span<const Tensor> inputs) {
    py::gil_scoped_acquire gil;
    py::list given;
    for (const Tensor& t : inputs) {
      Tensor borrowed = t;
      // Copies: arena memory is overwritten while Python may still hold the array.
      if (t && t.desc.dtype != DType::opaque) borrowed.owner = nullptr;
      given.append(to_object(borrowed));
    }
    const auto call = py::reinterpret_borrow<py::object>(static_cast<PyObject*>(held.data));
    std::vector<Tensor> results;
    for (const py::handle& r : py::list(call(index, given))) results.push_back(to_tensor(r, false));
    return results;
  };
}

}  // namespace

std::shared_ptr<Program> make_program(const py::dict& d, const py::object& fallback, bool strict, bool shapes_only) {
  ProgramSpec spec;
  spec.n_values = py::cast<int>(d["n_values"]);
  for (const py::handle& p : py::list(d["inputs"])) spec.inputs.push_back(port_of(py::cast<py::dict>(p)));
  for (const py::handle& p : py::list(d["outputs"])) spec.outputs.push_back(port_of(py::cast<py::dict>(p)));
  for (const py::handle& c : py::list(d["constants"])) spec.constants.push_back(constant_of(py::cast<py::dict>(c)));
  for (const py::handle& n : py::list(d["nodes"])) spec.nodes.push_back(node_of(py::cast<py::dict>(n)));
  for (const py::handle& s : py::list(d["subprograms"]))
    spec.subprograms.push_back(py::cast<std::shared_ptr<Program>>(s));
  Fallback call = fallback_of(fallback);
  py::gil_scoped_release unlocked;
  return std::make_shared<Program>(std::move(spec), std::move(call), strict, shapes_only);
}

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

}  // namespace fi
