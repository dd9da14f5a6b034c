# SPDX-License-Identifier: Apache-2.0
"""If, Loop and Scan, written as ONNX text, against numpy."""

import numpy as np
import onnx
import pytest
from support import build, run_everywhere

from fastinfer.errors import FastinferError

HEAD = '<ir_version: 10, opset_import: ["": 21]>\n'


def check(text, feeds, expected):
    model = onnx.parser.parse_model(HEAD + text)
    for label, outputs in run_everywhere(model, feeds, strict=False):  # bodies may use the fallback
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
        else_branch = e () => (float[n] o) { o = Identity (x) }>
    }"""
    x = np.arange(3, dtype=np.float32)
    for c, d in np.ndindex(2, 2):
        want = np.concatenate([x, x]) if c and not d else x
        model = build(onnx.parser.parse_model(HEAD + text))
        got = model.run({"c": np.array(bool(c)), "d": np.array(bool(d)), "x": x})["y"]
        np.testing.assert_array_equal(got, want)


# The carried value doubles in length; the scan gives the iteration and a slice of an outer value.
LOOP = """g (int64[] m, bool[] c, int64[] limit, float[k] x, float[6] w) => (float[l] y, int64[n] its, float[n, 2] rows) {
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


def loop_reference(trips, cond, limit, x, w):
    y, its, rows, i = x, [], [], 0
    while cond and (trips is None or i < trips):
        y = np.concatenate([y, y])
        its.append(2 * i)
        rows.append(w[i : i + 2])
        cond, i = limit - i != 0, i + 1
    return [y, np.array(its, np.int64), np.array(rows, np.float32).reshape(len(rows), 2)]


@pytest.mark.parametrize("trips", [0, 1, 4, -3])
@pytest.mark.parametrize("cond", [True, False])
@pytest.mark.parametrize("limit", [0, 2, 100])
def test_loop(trips, cond, limit):
    x, w = np.arange(2, dtype=np.float32), np.arange(6, dtype=np.float32)
    feeds = {"m": np.array(trips), "c": np.array(cond), "limit": np.array(limit), "x": x, "w": w}
    check(LOOP, feeds, loop_reference(trips, cond, limit, x, w))


@pytest.mark.parametrize("left_out", ["m", "c", "mc"])
def test_loop_without_trip_count_or_condition(left_out):
    text = LOOP.replace(
        "Loop (m, c, x)", f"Loop ({'' if 'm' in left_out else 'm'}, {'' if 'c' in left_out else 'c'}, x)"
    )
    x, w = np.arange(3, dtype=np.float32), np.arange(6, dtype=np.float32)
    feeds = {"m": np.array(3), "c": np.array(True), "limit": np.array(2), "x": x, "w": w}
    check(text, feeds, loop_reference(None if "m" in left_out else 3, True, 2, x, w))


def test_loop_result_outlives_the_run():
    """Zero trips: the initial value leaves, and must not be memory of the run or of the caller."""
    x = np.arange(4, dtype=np.float32)
    model = build(onnx.parser.parse_model(HEAD + LOOP), strict=False)
    feeds = {"m": np.array(0), "c": np.array(True), "limit": np.array(1), "x": x, "w": np.zeros(6, np.float32)}
    y = model.run(feeds)["y"]
    x += 1
    np.testing.assert_array_equal(y, np.arange(4))


def test_loop_scan_output_that_changes_shape():
    text = """g (int64[] m, float[k] x) => (float[l] y, float[n, j] all) {
      y, all = Loop (m, , x) <body = b (int64[] i, bool[] go, float[k1] v) => (bool[] go, float[k2] u, float[k3] w) {
        u = Concat <axis = 0> (v, v)
        w = Identity (v)
      }>
    }"""
    model = build(onnx.parser.parse_model(HEAD + text))
    with pytest.raises(FastinferError, match=r"Loop.*scan output is float32\[2\] in one iteration"):
        model.run({"m": np.array(2), "x": np.ones(1, np.float32)})
    for trips in [0, 1]:  # zero trips: what the body declares, unknown extents 0
        got = model.run({"m": np.array(trips), "x": np.ones(3, np.float32)})["all"]
        assert got.shape == (trips, 3 * trips) and got.dtype == np.float32


def test_loop_in_a_loop_captures_from_both():
    text = """g (int64[] m, float[k] x, float[k] z) => (float[k] y) {
      y = Loop (m, , x) <body = b (int64[] i, bool[] go, float[k] v) => (bool[] go, float[k] u) {
        u = Loop (m, , v) <body = b2 (int64[] i2, bool[] go2, float[k] v2) => (bool[] go2, float[k] u2) {
          a = Add (v2, z)
          u2 = Add (a, v)
        }>
      }>
    }"""
    x, z = np.float32([1, 2]), np.float32([10, 20])
    y = x
    for _ in range(3):
        inner = y
        for _ in range(3):
            inner = inner + z + y
        y = inner
    check(text, {"m": np.array(3), "x": x, "z": z}, [y])


def test_loop_carries_a_sequence():
    text = """g (int64[] m, float[k] x) => (float[n] y) {
      empty = SequenceEmpty ()
      s = Loop (m, , empty) <body = b (int64[] i, bool[] go, seq(float[k]) v) => (bool[] go, seq(float[k]) u) {
        u = SequenceInsert (v, x)
      }>
      y = ConcatFromSequence <axis = 0> (s)
    }"""
    x = np.arange(3, dtype=np.float32)
    model = build(onnx.parser.parse_model(HEAD + text), strict=False)
    np.testing.assert_array_equal(model.run({"m": np.array(3), "x": x})["y"], np.tile(x, 3))


def scan_text(attrs=""):
    return f"""g (float[k] s0, float[n, k] x, float[k, n] w, float[k] o) => (float[k] s, float[a, b] y, float[c, d] z) {{
      s, y, z = Scan (s0, x, w) <num_scan_inputs = 2 {attrs}, body = b (float[k] v, float[k] p, float[k] q) =>
        (float[k] u, float[k] r1, float[k] r2) {{
        a = Add (v, p)
        u = Mul (a, o)
        r1 = Add (u, q)
        r2 = Mul (p, q)
      }}>
    }}"""


@pytest.mark.parametrize("directions", [(0, 0, 0, 0), (1, 0, 0, 1), (0, 1, 1, 0), (1, 1, 1, 1)])
@pytest.mark.parametrize("axes", [(0, 0), (1, -1), (-2, 1)])
@pytest.mark.parametrize("length", [1, 3])
def test_scan(directions, axes, length):
    rng = np.random.default_rng(length)
    s0, o = rng.standard_normal((2, 4), np.float32)
    x, w = rng.standard_normal((length, 4), np.float32), rng.standard_normal((4, length), np.float32)
    attrs = f", scan_input_axes = [0, -1], scan_input_directions = [{directions[0]}, {directions[1]}]"
    attrs += f", scan_output_axes = [{axes[0]}, {axes[1]}], scan_output_directions = [{directions[2]}, {directions[3]}]"
    s, ys, zs = s0, [], []
    for t in range(length):
        p, q = x[length - 1 - t if directions[0] else t], w[:, length - 1 - t if directions[1] else t]
        s = (s + p) * o
        ys, zs = [*ys, s + q], [*zs, p * q]
    ys, zs = ys[:: -1 if directions[2] else 1], zs[:: -1 if directions[3] else 1]
    check(scan_text(attrs), {"s0": s0, "x": x, "w": w, "o": o}, [s, np.stack(ys, axes[0]), np.stack(zs, axes[1])])


def test_scan_of_nothing_and_of_unequal_lengths():
    attrs = ", scan_input_axes = [0, 1]"
    feeds = {"s0": np.ones(4, np.float32), "x": np.ones((0, 4), np.float32), "w": np.ones((4, 0), np.float32),
             "o": np.ones(4, np.float32)}  # fmt: skip
    text = scan_text(attrs).replace("float[k, n] w", "float[k, m] w")  # the steps are Scan's own check, not the inputs'
    model = build(onnx.parser.parse_model(HEAD + text))
    got = model.run(feeds)
    np.testing.assert_array_equal(got["s"], feeds["s0"])
    assert got["y"].shape[0] == 0 and got["y"].dtype == np.float32
    with pytest.raises(FastinferError, match="Scan.*scan input 1 has 2 steps"):
        model.run({**feeds, "w": np.ones((4, 2), np.float32)})
