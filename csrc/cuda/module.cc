// SPDX-License-Identifier: Apache-2.0
// fastinfer._cuda: pointers and streams cross as integers, so no framework's headers are needed. One file, as
// pybind11's headers cost more than all kernels. Imports without a driver: the runtime is linked statically and looks
// for libcuda.so when it is first asked.
#include <pybind11/pybind11.h>

#include "csrc/base/exceptions.h"
#include "csrc/cuda/device.h"
#include "kernels/batching/ragged.cuh"
#include "kernels/nbits/wna16.cuh"
#include "kernels/tiny/mlp.cuh"

namespace py = pybind11;

namespace fi {
namespace {

template <class T>
T* at(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

void export_ragged(py::module_& m) {
  py::class_<Ragged>(m, "Ragged")
      .def(py::init([](uintptr_t from, uintptr_t to, uintptr_t offsets, int64_t sequences, int64_t extent,
                       int64_t total, int64_t row_bytes) {
        return Ragged{at<void>(from), at<void>(to), at<int32_t>(offsets), sequences, extent, total, row_bytes};
      }))
      .def_property_readonly("width", &ragged_width)
      .def("piece", [](const Ragged& r, int64_t sequence, int64_t begin, int64_t end) {
        const RaggedPiece p = ragged_piece(r, sequence, begin, end);
        return py::make_tuple(p.padded, p.packed, p.bytes);
      });
  m.def("pack_ragged", [](const Ragged& r, uintptr_t stream) { pack_ragged(r, at<void>(stream)); });
  m.def("unpack_ragged", [](const Ragged& r, uintptr_t stream) { unpack_ragged(r, at<void>(stream)); });
}

void export_wna16(py::module_& m) {
  py::class_<WnA16>(m, "WnA16")
      .def(py::init([](uintptr_t a, uintptr_t weights, uintptr_t meta, uintptr_t bias, uintptr_t y, int64_t rows,
                       int64_t n, int64_t k, int bits, int block_shift, bool bf16, int warps, int split) {
        return WnA16{at<void>(a),
                     at<uint32_t>(weights),
                     at<uint32_t>(meta),
                     at<void>(bias),
                     at<void>(y),
                     rows,
                     n,
                     k,
                     bits,
                     block_shift,
                     bf16,
                     warps,
                     split};
      }));
  m.def("wn_extents", [](int64_t n, int64_t k, int bits, int block_shift) {
    const WnExtents x = wn_extents(n, k, bits, block_shift);
    return py::make_tuple(x.pairs, x.chunks, x.blocks);
  });
  m.def("wn_schedule", [](int64_t n, int64_t k, int bits) {
    const WnSchedule s = wn_schedule(n, k, bits);
    return py::make_tuple(s.warps, s.split);
  });
  m.def("wn_shuffle", [](int64_t n, int64_t k, int bits, int block_shift, uintptr_t q, uintptr_t weights) {
    py::gil_scoped_release unlocked;
    wn_shuffle(n, k, bits, block_shift, at<uint8_t>(q), at<uint32_t>(weights));
  });
  m.def("wn_unshuffle", [](int64_t n, int64_t k, int bits, int block_shift, uintptr_t weights, uintptr_t q) {
    wn_unshuffle(n, k, bits, block_shift, at<uint32_t>(weights), at<uint8_t>(q));
  });
  m.def("wn_shuffle_meta",
        [](int64_t n, int64_t k, int bits, int block_shift, uintptr_t scales, uintptr_t zeros, uintptr_t meta) {
          wn_shuffle_meta(n, k, bits, block_shift, at<float>(scales), at<uint8_t>(zeros), at<uint32_t>(meta));
        });
  m.def("wna16", [](const WnA16& p, uintptr_t stream) { wna16(p, at<void>(stream)); });
  m.def("wna16_on_host", &wna16_on_host);
}

// layers: (weights, bias or 0, in, out, activation's number)
Mlp make_mlp(uintptr_t x, uintptr_t y, int64_t m, int type, const py::sequence& layers) {
  Mlp p{at<void>(x), at<void>(y), m, static_cast<MlpType>(type), static_cast<int>(py::len(layers)), {}};
  check(type >= 0 && type <= 2, "mlp: type ", type);
  check(p.count >= 1 && p.count <= kMlpLayers, "mlp: ", p.count, " layers; needed: 1 to ", kMlpLayers);
  for (int l = 0; l < p.count; ++l) {
    const py::tuple t = layers[l];
    p.layers[l] = {at<void>(t[0].cast<uintptr_t>()), at<void>(t[1].cast<uintptr_t>()), t[2].cast<int>(),
                   t[3].cast<int>(), static_cast<MlpAct>(t[4].cast<int>())};
  }
  return p;
}

void export_mlp(py::module_& m) {
  py::class_<Mlp>(m, "Mlp")
      .def(py::init(&make_mlp))
      .def_property_readonly("blocks", &mlp_blocks)
      .def_property_readonly("width", &mlp_width);
  m.def("mlp", [](const Mlp& p, uintptr_t stream) { mlp(p, at<void>(stream)); });
  m.def("mlp_on_host", &mlp_on_host);
}

}  // namespace
}  // namespace fi

PYBIND11_MODULE(_cuda, m) {
  using namespace fi;
  m.doc() = "fastinfer's CUDA C++ kernels; use fastinfer.cuda.native instead of this module.";
  translate_exceptions();
  m.def("device_count", &device_count);
  m.def("runtime_version", &runtime_version);
  export_ragged(m);
  export_wna16(m);
  export_mlp(m);
}
