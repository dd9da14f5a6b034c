# SPDX-License-Identifier: Apache-2.0
"""Symbolic extents, shape rules, contents of shape tensors."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from fastinfer.passes import dims as D
from fastinfer.passes.shapes import Shapes
from fastinfer.passes.simplify_shapes import literal_shape

from .graphs import parse

N, S = D.symbol("N"), D.symbol("S")


def test_extents_are_polynomials() -> None:
    assert D.add(N, 0) == N and D.sub(N, N) == 0 and D.mul(N, 0) == 0
    assert D.mul(D.add(N, 1), 2) == D.add(D.mul(2, N), 2)
    assert D.exact_div(D.product([N, S, 768]), D.mul(S, 12)) == D.mul(N, 64)
    assert D.exact_div(N, S) is None and D.exact_div(D.mul(3, N), 2) is None
    assert D.floor_div(D.add(D.mul(4, N), 3), 2) == D.add(D.mul(2, N), 1)
    assert D.floor_div(D.add(N, 1), 2) == D.floor_div(D.add(1, N), 2) != D.floor_div(N, 2)
    assert D.ceil_div(7, 2) == 4 and D.minimum(N, D.add(N, 1)) == N and D.maximum(3, 4) == 4
    assert D.at_least(D.add(N, 2), 2) and not D.at_least(D.sub(N, 1), 0)
    assert D.broadcast_dim(N, 1) == N and D.broadcast_dim(N, 4) == 4 and D.broadcast_dim(N, S) is None


def test_literal_shapes() -> None:
    assert literal_shape((N, S, 64), (N, S, 4, 16)) == [0, 0, 4, 16]
    assert literal_shape((N, S, 64), (D.mul(N, S), 64)) == [-1, 64]
    assert literal_shape((N, 4, S), (D.mul(N, 4), S)) is None


def _value_shapes(text: str, **constants: np.ndarray) -> dict[str, tuple]:
    model = parse(text, **constants)
    shapes = Shapes(model)
    return {o.name: shapes.dims(o) for n in model.graph for o in n.outputs}  # type: ignore[misc]


OPERATORS = [
    "Conv<kernel_shape=[3,3], pads=[1,0,1,2], strides=[2,1]>(x, w)",
    "Conv<auto_pad=\"SAME_UPPER\", strides=[2,2]>(x, w)",
    "ConvTranspose<strides=[3,2], pads=[1,0,1,1], output_padding=[1,1]>(x, t)",
    "MaxPool<kernel_shape=[3,2], strides=[2,2], ceil_mode=1, pads=[1,0,1,0]>(x)",
    "AveragePool<kernel_shape=[3,2], dilations=[1,2]>(x)",
    "GlobalMaxPool(x)", "ReduceMean<keepdims=0>(x, axes)", "ReduceSum(x, axes)", "ArgMax<axis=1, keepdims=0>(x)",
    "Transpose<perm=[2,0,1,3]>(x)", "Flatten<axis=2>(x)", "Unsqueeze(x, axes)", "Concat<axis=2>(x, x)", "Pad(x, pads)",
    "Slice(x, one, last, two)", "Expand(x, five)", "Tile(x, four)", "Gather<axis=1>(x, axes)", "DepthToSpace<blocksize=2>(x)",
    "SpaceToDepth<blocksize=2>(x)", "Reshape(x, view)", "TopK<axis=2>(x, one)", "Shape<start=1>(x)", "MatMul(x, m)",
    "Add(x, row)", "Where(c, x, row)", "Resize<mode=\"nearest\">(x, , scales)", "Einsum<equation=\"abcd->dc\">(x)",
    "LogSoftmax<axis=1>(x)", "GatherElements<axis=0>(x, index)",
]  # fmt: skip


@pytest.mark.parametrize("operator", OPERATORS)
def test_rules_agree_with_onnx(operator: str) -> None:
    constants = {
        "w": np.zeros((8, 4, 3, 3), np.float32), "t": np.zeros((4, 5, 3, 2), np.float32), "axes": np.array([1, 2]),
        "pads": np.array([0, 1, 2, 0, 0, 0, 1, 3]), "one": np.array([1]), "last": np.array([-1]), "two": np.array([2]),
        "five": np.array([3, 1, 4, 6, 8]), "four": np.array([1, 2, 1, 3]), "view": np.array([0, -1, 8]),
        "m": np.zeros((8, 5), np.float32), "row": np.zeros((6, 1), np.float32), "c": np.zeros((1, 4, 1, 1), bool),
        "scales": np.array([1, 1, 1.5, 2], np.float32), "index": np.zeros((1, 2, 3, 4), np.int64), "depth": np.array(7),
        "pair": np.zeros(2, np.float32),
    }  # fmt: skip
    kinds = {"f": "float", "i": "int64", "b": "bool"}
    declared = "".join(f", {kinds[v.dtype.kind]}[{','.join(map(str, v.shape))}] {k}" for k, v in constants.items())
    text = f"g (float[2,4,6,8] x{declared}) => (float y) {{ z = {operator} y = Cast<to=1>(z) }}"
    if operator.startswith("TopK"):
        text = text.replace("z =", "z, i =")
    model = parse(text, **constants)
    import onnx_ir as ir

    inferred = onnx.shape_inference.infer_shapes(ir.to_proto(model), data_prop=True)
    wanted = next(v for v in inferred.graph.value_info if v.name == "z").type.tensor_type.shape.dim
    assert Shapes(model).dims(model.graph[0].outputs[0]) == tuple(d.dim_value for d in wanted)


def test_shape_arithmetic_is_followed() -> None:
    found = _value_shapes(
        """g (float[N,S,64] x, int64[1] zero, int64[1] one, int64[2] heads, int64 i0, int64 i1, int64[1] minus) => (float y) {
        s = Shape(x) n = Gather(s, i0) t = Gather(s, i1) n1 = Unsqueeze(n, zero) t1 = Unsqueeze(t, zero)
        a = Concat<axis=0>(n1, t1, heads) b = Reshape(x, a) q = Mul(n1, t1) r = Concat<axis=0>(q, minus) d = Reshape(x, r)
        h = Slice(s, zero, one) e = Equal(s, s) f = Concat<axis=0>(h, one, minus) y = Reshape(x, f) }""",
        zero=np.array([0]), one=np.array([1]), heads=np.array([4, 16]), i0=np.array(0), i1=np.array(1), minus=np.array([-1]),
    )  # fmt: skip
    assert found["b"] == (N, S, 4, 16) and found["d"] == (D.mul(N, S), 64) and found["y"] == (N, 1, D.mul(64, S))


def test_the_expand_idiom_of_torch() -> None:
    found = _value_shapes(
        """g (float[N,1,4] x, int64[3] want, int64[3] ones, int64[3] minus) => (float y) {
        s = Shape(x) e = Equal(want, minus) w = Where(e, s, want) y = Expand(x, w) }""",
        want=np.array([-1, 7, -1]), ones=np.array([1, 1, 1]), minus=np.array([-1, -1, -1]),
    )  # fmt: skip
    assert found["y"] == (N, 7, 4)


def test_equal_computations_give_equal_symbols() -> None:
    found = _value_shapes(
        """g (float[N,4,H,W] x, float[4,4,3,3] w, float[4,4,1,1] v) => (float y, float z) {
        y = Conv<strides=[2,2], pads=[1,1,1,1]>(x, w) z = Conv<strides=[2,2]>(x, v) }""",
        w=np.zeros((4, 4, 3, 3), np.float32), v=np.zeros((4, 4, 1, 1), np.float32),
    )  # fmt: skip
    assert found["y"] == found["z"]


def test_loops_promise_no_extents() -> None:
    model = parse("""g (int64 n, bool c, float[2] x) => (float y) {
        y = Loop(n, c, x) <body = b (int64 i, bool ci, float[2] v) => (bool co, float[2] u) { co = Identity(ci) u = Concat<axis=0>(v, v) }> }""")
    dims = Shapes(model).dims(model.graph[0].outputs[0])
    assert dims is not None and len(dims) == 1 and not isinstance(dims[0], int)


def test_an_invalid_node_is_just_unknown() -> None:
    found = _value_shapes("g (float[2,3] x) => (float y) { t = Transpose<perm=[0,5]>(x) y = Neg(t) }")
    assert found["t"] is None
