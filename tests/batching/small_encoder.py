# SPDX-License-Identifier: Apache-2.0
"""A model of sequences that packs, feeds for it of different lengths, and what must be equal."""

import numpy as np
import onnx

import fastinfer as fi

TEXT = """<ir_version: 10, opset_import: ["" : 23]>
g (int64[n,t] ids) => (float[n,t,8] y, float[n,8] m) { e = Gather<axis = 0>(table, ids) y = MatMul(e, w)
  one = Constant<value_ints = [1]>() m = ReduceMean<keepdims = 0>(y, one) }"""


def compiled():
    r = np.random.default_rng(2)
    proto = onnx.parser.parse_model(TEXT)
    for name, shape in (("table", (50, 16)), ("w", (16, 8))):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(r.standard_normal(shape, dtype=np.float32), name))
    return fi.compile(proto, threads=2)


def same(got, want):
    assert got.keys() == want.keys()
    for k in want:
        np.testing.assert_array_equal(got[k], want[k])


def feeds(count, seed=0):
    r = np.random.default_rng(seed)
    return [{"ids": r.integers(0, 50, (r.integers(1, 4), r.integers(1, 30)))} for _ in range(count)]
