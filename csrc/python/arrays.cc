// SPDX-License-Identifier: Apache-2.0
#include "csrc/python/arrays.h"

#include <map>
#include <utility>

namespace py = pybind11;

namespace fi {
namespace {

constexpr std::pair<DType, const char*> kPlain[] = {
    {DType::f32, "float32"},   {DType::u8, "uint8"},       {DType::s8, "int8"},    {DType::u16, "uint16"},
    {DType::s16, "int16"},     {DType::s32, "int32"},      {DType::s64, "int64"},  {DType::boolean, "bool"},
    {DType::f16, "float16"},   {DType::f64, "float64"},    {DType::u32, "uint32"}, {DType::u64, "uint64"},
    {DType::c64, "complex64"}, {DType::c128, "complex128"}};
constexpr std::pair<DType, const char*> kExtended[] = {{DType::bf16, "bfloat16"},
                                                       {DType::f8e4m3fn, "float8_e4m3fn"},
                                                       {DType::f8e4m3fnuz, "float8_e4m3fnuz"},
                                                       {DType::f8e5m2, "float8_e5m2"},
                                                       {DType::f8e5m2fnuz, "float8_e5m2fnuz"},
                                                       {DType::u4, "uint4"},
                                                       {DType::s4, "int4"},
                                                       {DType::f4e2m1, "float4_e2m1fn"},
                                                       {DType::f8e8m0, "float8_e8m0fnu"},
                                                       {DType::u2, "uint2"},
                                                       {DType::s2, "int2"}};

// numpy's type number → DType. Extended types get their numbers when ml_dtypes registers them, so they are looked up
// by name the first time one is seen.
std::map<int, DType>& by_number() {
  static std::map<int, DType> known = [] {
    std::map<int, DType> m;
    for (const auto& [t, name] : kPlain) m[py::dtype(name).num()] = t;
    // int64 and long long are two numpy types of one meaning.
    m[py::dtype("longlong").num()] = DType::s64;
    m[py::dtype("ulonglong").num()] = DType::u64;
    return m;
  }();
  return known;
}

void release_object(void* object) {
  if (!Py_IsInitialized()) return;
  py::gil_scoped_acquire gil;
  Py_DECREF(static_cast<PyObject*>(object));
}

}  // namespace

DType dtype_of(const py::dtype& dtype) {
  auto& known = by_number();
  if (const auto it = known.find(dtype.num()); it != known.end()) return it->second;
  const std::string name = py::str(dtype.attr("name"));
  for (const auto& [t, n] : kExtended)
    if (name == n) return known[dtype.num()] = t;
  return DType::none;
}

py::dtype numpy_dtype(DType t) {
  for (const auto& [d, name] : kPlain)
    if (d == t) return py::dtype(name);
  for (const auto& [d, name] : kExtended)
    if (d == t) return py::dtype::from_args(py::module_::import("ml_dtypes").attr(name));
  throw Error(words("no numpy type for ", name_of(t)));
}

Tensor opaque(py::object object) {
  Tensor t;
  t.desc.dtype = DType::opaque;
  t.data = object.release().ptr();
  t.owner = {t.data, release_object};
  return t;
}

Tensor to_tensor(py::handle object, bool none_is_absent) {
  if (object.is_none() && none_is_absent) return {};
  if (!py::isinstance<py::array>(object)) return opaque(py::reinterpret_borrow<py::object>(object));
  py::array array = py::reinterpret_borrow<py::array>(object);
  const DType dtype = dtype_of(array.dtype());
  if (dtype == DType::none) return opaque(array);
  if (!(array.flags() & py::array::c_style) || !py::detail::npy_api::get().PyArray_Check_(array.ptr()) ||
      array.dtype().byteorder() == '>' || !(array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_)) {
    py::object np = py::module_::import("numpy");
    py::object native = array.dtype().byteorder() == '>' ? array.attr("astype")(array.dtype().attr("newbyteorder")("="))
                                                         : py::object(array);
    // ascontiguousarray would turn a scalar into a vector.
    array = py::reinterpret_steal<py::array>(native.attr("copy")(py::arg("order") = "C").release());
  }
  Tensor t;
  check(array.ndim() <= kMaxRank, "an array of rank ", array.ndim(), " was given; at most ", kMaxRank, " is supported");
  t.desc = {dtype, Shape(array.shape(), array.shape() + array.ndim())};
  t.data = const_cast<void*>(array.data());
  t.owner = {array.release().ptr(), release_object};
  return t;
}

py::object to_object(const Tensor& t) {
  if (t.desc.dtype == DType::opaque) return py::reinterpret_borrow<py::object>(static_cast<PyObject*>(t.data));
  if (t.desc.dtype == DType::none) return py::none();
  py::object base;
  if (t.owner) {
    auto* owner = new std::shared_ptr<void>(t.owner);
    base = py::capsule(owner, [](void* p) { delete static_cast<std::shared_ptr<void>*>(p); });
  }
  const std::vector<py::ssize_t> shape(t.desc.shape.begin(), t.desc.shape.end());
  return py::array(numpy_dtype(t.desc.dtype), shape, t.data, base);  // without a base, numpy copies
}

}  // namespace fi
