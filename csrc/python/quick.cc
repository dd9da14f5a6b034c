// SPDX-License-Identifier: Apache-2.0
// Written to CPython's interface itself: pybind11's argument and array conversions cost more than a small model's
// arithmetic.
#include "csrc/python/quick.h"

#include <array>
#include <cstdlib>

#include "csrc/engine/executor.h"
#include "csrc/python/arrays.h"

namespace py = pybind11;

namespace fi {
namespace {

using py::detail::npy_api;
using Array = py::detail::PyArray_Proxy;

constexpr int kNumbers = 24;  // numpy's own number types; registered ones (bfloat16, ...) take the general way
// Outputs from here on come from allocate_bytes with its huge pages; a microsecond does not matter there.
constexpr size_t kLargest = size_t{256} << 10;
// A run that took less keeps the interpreter's lock: handing it to another caller and back costs several microseconds.
constexpr int64_t kShortNs = 10'000;
constexpr int kDense = npy_api::NPY_ARRAY_C_CONTIGUOUS_ | npy_api::NPY_ARRAY_ALIGNED_;

struct NumberTypes {
  std::array<DType, kNumbers> dtype{};                      // by numpy's number
  std::array<PyObject*, size_t{kNumbers} * 4> described{};  // numpy's description by DType; null: none
  PyTypeObject* array = npy_api::get().PyArray_Type_;

  NumberTypes() {
    for (const char* name : {"float32", "uint8", "int8", "uint16", "int16", "int32", "int64", "bool", "float16",
                             "float64", "uint32", "uint64", "longlong", "ulonglong"}) {
      py::dtype d(name);
      if (d.num() >= kNumbers) continue;
      const DType t = dtype_of(d);
      dtype[d.num()] = t;
      PyObject*& held = described[static_cast<size_t>(t)];
      if (!held) held = d.release().ptr();
    }
  }
  PyObject* of(DType t) const {
    const auto i = static_cast<size_t>(t);
    return i < described.size() ? described[i] : nullptr;
  }
};
const NumberTypes& number_types() {
  static const NumberTypes types;
  return types;
}

// An output's memory: this header fills the first 64 bytes, the data follow, so that one allocation holds both.
struct Memory {
  PyObject_HEAD char* data() { return reinterpret_cast<char*>(this) + kAlign; }
};
static_assert(sizeof(Memory) <= kAlign);
PyTypeObject* g_memory = nullptr;

void memory_dealloc(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  std::free(self);
  Py_DECREF(type);
}

py::object allocate(size_t bytes) {
  void* p = nullptr;
  if (posix_memalign(&p, kAlign, kAlign + (bytes + kAlign - 1) / kAlign * kAlign) != 0) throw std::bad_alloc();
  return py::reinterpret_steal<py::object>(PyObject_Init(static_cast<PyObject*>(p), g_memory));
}

py::object array_over(const Desc& d, const py::object& memory) {
  const npy_api& api = npy_api::get();
  Py_intptr_t extents[kMaxRank];
  for (int k = 0; k < d.shape.rank(); ++k) extents[k] = d.shape[k];
  PyObject* type = number_types().of(d.dtype);
  Py_INCREF(type);  // taken over
  auto made = py::reinterpret_steal<py::object>(api.PyArray_NewFromDescr_(
      number_types().array, type, d.shape.rank(), extents, nullptr, reinterpret_cast<Memory*>(memory.ptr())->data(),
      kDense | npy_api::NPY_ARRAY_WRITEABLE_, nullptr));
  if (!made) throw py::error_already_set();
  if (api.PyArray_SetBaseObject_(made.ptr(), memory.inc_ref().ptr()) < 0) throw py::error_already_set();
  return made;
}

struct State {
  py::object held;  // keeps the executor
  Executor* executor;
  py::tuple inputs, outputs;
};
struct Quick {
  PyObject_HEAD State* state;
};

// What one thread needs while it calls; kept, so that a call allocates nothing but its outputs.
struct Scratch {
  PlanKey key;
  std::vector<PyObject*> arrays;
  std::vector<char*> bases;
  std::vector<py::object> buffers;
  bool busy = false;
};

class Call {
 public:
  Call(State& state, Scratch& s) : state_(state), s_(s) {
    s_.busy = true;
    s_.key.clear();
  }
  ~Call() {
    for (PyObject* a : s_.arrays) Py_DECREF(a);
    s_.arrays.clear();
    s_.buffers.clear();
    s_.busy = false;
  }

  bool add(PyObject* object) {
    if (!object || Py_TYPE(object) != number_types().array) return false;
    const auto* a = reinterpret_cast<const Array*>(object);
    const auto* d = reinterpret_cast<const py::detail::PyArrayDescr_Proxy*>(a->descr);
    if ((a->flags & kDense) != kDense || d->byteorder == '>' || a->nd > kMaxRank) return false;
    const DType t = d->type_num >= 0 && d->type_num < kNumbers ? number_types().dtype[d->type_num] : DType::none;
    if (t == DType::none) return false;
    append_key(s_.key, t, a->nd);
    s_.key.insert(s_.key.end(), a->dimensions, a->dimensions + a->nd);
    Py_INCREF(object);  // its owner may drop it while the lock is released
    s_.arrays.push_back(object);
    return true;
  }

  // The outputs in order, or nothing if this is no quick call.
  bool run(std::vector<py::object>& results) {
    const std::shared_ptr<Segment> plan = state_.executor->find_whole(s_.key);
    if (!plan || plan->results.size() != state_.outputs.size() || !prepare(*plan)) return false;
    for (size_t i = 0; i < s_.arrays.size(); ++i) s_.bases[i + 1] = reinterpret_cast<Array*>(s_.arrays[i])->data;
    if (plan->last_ns.load(std::memory_order_relaxed) < kShortNs) {
      state_.executor->run_whole(*plan, s_.bases.data());
    } else {
      py::gil_scoped_release unlocked;
      state_.executor->run_whole(*plan, s_.bases.data());
    }
    for (const OutputSource& r : plan->results) results.push_back(array_over(r.desc, s_.buffers[buffer_of(*plan, r)]));
    return true;
  }

 private:
  static size_t buffer_of(const Segment& plan, const OutputSource& r) {
    size_t i = 0;
    while (i < plan.buffers.size() && plan.buffers[i].base != r.base) ++i;
    return i;
  }
  bool prepare(const Segment& plan) {
    for (const OutputSource& r : plan.results)
      if (buffer_of(plan, r) == plan.buffers.size() || !number_types().of(r.desc.dtype)) return false;
    for (const OutputBuffer& b : plan.buffers)
      if (b.desc.bytes() >= kLargest) return false;
    s_.bases.resize(plan.n_bases);
    for (const OutputBuffer& b : plan.buffers) {
      s_.buffers.push_back(allocate(b.desc.bytes()));
      s_.bases[b.base] = reinterpret_cast<Memory*>(s_.buffers.back().ptr())->data();
    }
    return true;
  }

  State& state_;
  Scratch& s_;
};

Scratch& scratch() {
  static thread_local Scratch s;
  return s;
}

// Whatever goes wrong goes wrong again on the general way, which has the words for it.
template <class F>
PyObject* guarded(const F& f) {
  Scratch& s = scratch();
  if (!s.busy) {
    try {
      if (py::object made = f(s)) return made.release().ptr();
    } catch (const py::error_already_set&) {
    } catch (const std::exception&) {
    }
    PyErr_Clear();
  }
  Py_RETURN_NONE;
}

PyObject* quick_run(PyObject* self, PyObject* feeds) {
  State& state = *reinterpret_cast<Quick*>(self)->state;
  const auto n = static_cast<Py_ssize_t>(state.inputs.size());
  if (!PyDict_CheckExact(feeds) || PyDict_GET_SIZE(feeds) != n) Py_RETURN_NONE;
  return guarded([&](Scratch& s) -> py::object {
    Call call(state, s);
    for (Py_ssize_t i = 0; i < n; ++i)
      if (!call.add(PyDict_GetItemWithError(feeds, PyTuple_GET_ITEM(state.inputs.ptr(), i)))) return {};
    std::vector<py::object> results;
    if (!call.run(results)) return {};
    py::dict named;
    for (size_t i = 0; i < results.size(); ++i)
      if (PyDict_SetItem(named.ptr(), PyTuple_GET_ITEM(state.outputs.ptr(), static_cast<Py_ssize_t>(i)),
                         results[i].ptr()) < 0)
        throw py::error_already_set();
    return named;
  });
}

PyObject* quick_call(PyObject* self, PyObject* args) {
  State& state = *reinterpret_cast<Quick*>(self)->state;
  const auto n = static_cast<Py_ssize_t>(state.inputs.size());
  if (!PyTuple_CheckExact(args) || PyTuple_GET_SIZE(args) != n) Py_RETURN_NONE;
  return guarded([&](Scratch& s) -> py::object {
    Call call(state, s);
    for (Py_ssize_t i = 0; i < n; ++i)
      if (!call.add(PyTuple_GET_ITEM(args, i))) return {};
    std::vector<py::object> results;
    if (!call.run(results)) return {};
    if (results.size() == 1) return std::move(results[0]);
    py::tuple all(results.size());
    for (size_t i = 0; i < results.size(); ++i)
      PyTuple_SET_ITEM(all.ptr(), static_cast<Py_ssize_t>(i), results[i].release().ptr());
    return all;
  });
}

PyObject* quick_new(PyTypeObject* type, PyObject* args, PyObject*) {
  PyObject *executor = nullptr, *inputs = nullptr, *outputs = nullptr;
  if (!PyArg_ParseTuple(args, "OO!O!", &executor, &PyTuple_Type, &inputs, &PyTuple_Type, &outputs)) return nullptr;
  try {
    number_types();
    auto* native = py::cast<Executor*>(py::handle(executor));
    PyObject* self = type->tp_alloc(type, 0);
    if (!self) return nullptr;
    reinterpret_cast<Quick*>(self)->state =
        new State{py::reinterpret_borrow<py::object>(executor), native, py::reinterpret_borrow<py::tuple>(inputs),
                  py::reinterpret_borrow<py::tuple>(outputs)};
    return self;
  } catch (const std::exception& e) {
    PyErr_SetString(PyExc_TypeError, e.what());
    return nullptr;
  }
}

void quick_dealloc(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  delete reinterpret_cast<Quick*>(self)->state;
  type->tp_free(self);
  Py_DECREF(type);
}

PyMethodDef quick_methods[] = {{"run", quick_run, METH_O, "dict of arrays → dict of arrays, or None"},
                               {"call", quick_call, METH_O, "tuple of arrays → array or tuple, or None"},
                               {nullptr, nullptr, 0, nullptr}};
PyType_Slot quick_slots[] = {{Py_tp_new, reinterpret_cast<void*>(quick_new)},
                             {Py_tp_dealloc, reinterpret_cast<void*>(quick_dealloc)},
                             {Py_tp_methods, quick_methods},
                             {0, nullptr}};
PyType_Spec quick_spec = {"fastinfer._core.Quick", sizeof(Quick), 0, Py_TPFLAGS_DEFAULT, quick_slots};

PyType_Slot memory_slots[] = {{Py_tp_dealloc, reinterpret_cast<void*>(memory_dealloc)}, {0, nullptr}};
PyType_Spec memory_spec = {"fastinfer._core.Memory", sizeof(Memory), 0, Py_TPFLAGS_DEFAULT, memory_slots};

}  // namespace

void add_quick(py::module_& m) {
  g_memory = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&memory_spec));
  PyObject* quick = PyType_FromSpec(&quick_spec);
  if (!g_memory || !quick) throw py::error_already_set();
  m.attr("Quick") = py::reinterpret_steal<py::object>(quick);
}

}  // namespace fi
