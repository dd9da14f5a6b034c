# SPDX-License-Identifier: Apache-2.0
"""If, Loop and Scan, written as ONNX text, against numpy."""

import numpy as np
import onnx
import pytest

from fastinfer.errors import FastinferError
from support import build, run_everywhere

HEAD = '<ir_version: 10, opset_import: ["": 21]>\n'


def check(text, feeds, expected):
    model = onnx.parser.parse_model(HEAD + text)
    onnx.checker.check_model(model)
    for label, outputs in run_everywhere(model, feeds):
        assert len(outputs) == len(expected)
        for got, want in zip(outputs, expected, strict=True):
            want = np.asarray(want)
            assert (got.dtype, got.shape) == (want.dtype, want.shape), label
            np.testing.assert_allclose(got, want, rtol=1e-6, err_msg=label)


IF = """g (bool c, float[n] x, float[n] z) => (float[m] y, float[] s) {
  w = Concat <axis = 0> (x, z)
  y, s = If (c) <
    then_branch = t () => (float[m] a, float[] b) { i = Constant <value_ints = [0]> () a = Gather (w, i) b = Squeeze (a) },
    else_branch = e () => (float[k] p, float[] q) { p = Concat <axis = 0> (x, w, z) j = Constant <value_int = 2> () q = Gather (p, j) }>
}"""


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_if_takes_a_branch_and_sees_outer_values(shape):
    x, z = np.arange(3, dtype=np.float32), np.arange(5, 8, dtype=np.float32)
    text = IF.replace("bool c", f"bool[{','.join('1' * len(shape))}] c" if shape else "bool[] c")
    check(text, {"c": np.full(shape, True), "x": x, "z": z}, [x[:1], x[0]])
    check(text, {"c": np.full(shape, False), "x": x, "z": z}, [np.concatenate([x, x, z, z]), x[2]])


@pytest.mark.parametrize("c", [np.array([True, False]), np.zeros(0, bool)])
def test_if_condition_must_be_one_element(c):
    x = np.ones(3, np.float32)
    model = build(onnx.parser.parse_model(HEAD + IF.replace("bool c", "bool[k] c")))
    with pytest.raises(FastinferError, match="If.*condition is"):
        model.run({"c": c, "x": x, "z": x})


def test_nested_if_and_branch_that_returns_an_outer_value():
    text = """g (bool[] c, bool[] d, float[n] x) => (float[n] y) {
      y = If (c) <
        then_branch = t () => (float[n] a) { a = If (d) <
            then_branch = tt () => (float[n] b) { b = Identity (x) },
            else_branch = te () => (float[n] k) { k = Concat <axis = 0> (x, x) }> },
        else_branch = e () => (float[n] x) { }>
    }"""
    x = np.arange(3, dtype=np.float32)
    for c, d in np.ndindex(2, 2):
        want = np.concatenate([x, x]) if c and not d else x
        model = build(onnx.parser.parse_model(HEAD + text))
        got = model.run({"c": np.array(bool(c)), "d": np.array(bool(d)), "x": x})["y"]
        np.testing.assert_array_equal(got, want)


# The carried value doubles in length; the scan gives the iteration and a slice of an outer value.
LOOP = """g (int64[] m, bool[] c, int64 limit, float[k] x, float[6] w) => (float[l] y, int64[n] its, float[n, 2] rows) {
  zero = Constant <value_ints = [0]> ()
  two = Constant <value_int = 2> ()
  y, its, rows = Loop (m, c, x) <body = b (int64[] i, bool[] go, float[k1] v) => (bool[] next, float[k2] u, int64[] it, float[2] row) {
    u = Concat <axis = 0> (v, v)
    it = Mul (i, two)
    one = Constant <value_ints = [1]> ()
    s = Reshape (i, one)
    e = Constant <value_ints = [2]> ()
    f = Concat <axis = 0> (s, e)
    r = ReduceSum <keepdims = 1> (f)
    row = Slice (w, s, r, zero)
    left = Sub (limit, i)
    next = Cast <to = 9> (left)
  }>
}"""
needs_arithmetic = pytest.mark.skipif(
    not {"::Mul", "::Sub", "::Cast", "::ReduceSum"} <= set(__import__("fastinfer")._core.native_ops()),
    reason="Mul, Sub, Cast or ReduceSum has no native form yet",
)  # fmt: skip
