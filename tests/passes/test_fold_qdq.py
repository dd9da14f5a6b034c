# SPDX-License-Identifier: Apache-2.0
"""Graphs with QuantizeLinear and DequantizeLinear: what folds, and that one quantisation step is the most that moves."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from fastinfer.passes import verify
from fastinfer.passes.channels_last import channels_last
from fastinfer.passes.fold_qdq import fold_qdq
from fastinfer.passes.fuse_conv import fuse_conv
from fastinfer.passes.fuse_matmul import fuse_matmul
from fastinfer.passes.fuse_pointwise import fuse_pointwise

from .graphs import check, counts, parse

F, U, S = np.float32, np.uint8, np.int8
KINDS = {"float32": "float", "uint8": "uint8", "int8": "int8", "int32": "int32", "int64": "int64"}


def whole(dtype, *shape: int, seed: int = 0) -> np.ndarray:
    info = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(info.min, info.max + 1, shape).astype(dtype)


def model_of(text: str, inputs: dict[str, np.ndarray], output: str = "uint8", **constants) -> ir.Model:
    named = {k: np.asarray(v) for k, v in constants.items()}
    ports = ", ".join(
        f"{KINDS[v.dtype.name]}[{','.join(map(str, v.shape))}] {k}" for k, v in {**inputs, **named}.items()
    )
    rank = f"{output} y"
    model = parse(f"g ({ports}) => ({rank}) {{ {text} }}", **named)
    model.graph.outputs[0].shape = None
    model.graph.outputs[0].shape = ir.Shape(verify.run_reference(model, inputs)[0].shape)
    return model


def steps(model: ir.Model, inputs: dict[str, np.ndarray], *passes, scale: float = 1.0) -> dict[str, int]:
    """Runs the passes; outputs may move by one quantisation step (`scale` for a float output)."""
    before = verify.run_reference(model, inputs)[0]
    for step in passes:
        step(model)
    verify.check_structure(model)
    after = verify.run_reference(model, inputs)[0]
    assert after.dtype == before.dtype and after.shape == before.shape
    assert np.abs(after.astype(np.float64) - before).max(initial=0) <= scale * 1.001
    assert len(np.unique(before)) > 8, "the case says nothing"
    return counts(model)


CONV = dict(xs=F(0.02), xz=U(3), w=whole(S, 6, 4, 3, 3, seed=1), ws=np.linspace(0.01, 0.03, 6, dtype=F),
            wz=np.zeros(6, S), b=np.arange(-900, 900, 300).astype(np.int32), ys=F(0.6), yz=U(120), zero=F(0), six=F(6))  # fmt: skip
CONV["bs"], CONV["bz"] = CONV["xs"] * CONV["ws"], np.zeros(6, np.int32)
X = {"x": whole(U, 2, 4, 7, 6)}
HEAD = """xd = DequantizeLinear(x, xs, xz) wd = DequantizeLinear<axis=0>(w, ws, wz) bd = DequantizeLinear<axis=0>(b, bs, bz)
    c = Conv<pads=[1,1,1,1]>(xd, wd, bd)"""


@pytest.mark.parametrize("tail", ["y = QuantizeLinear(c, ys, yz)", "r = Relu(c) y = QuantizeLinear(r, ys, yz)",
                                  "r = Clip(c, zero, six) y = QuantizeLinear(r, ys, yz)"])  # fmt: skip
def test_convolution(tail: str) -> None:
    model = model_of(f"{HEAD} {tail}", X, **CONV)
    assert steps(model, X, fuse_conv, fold_qdq) == {"fastinfer.QConv": 1}
    node = model.graph[0]
    assert ("low" in node.attributes) == ("r =" in tail)
    if "Clip" in tail:
        assert (node.attributes["low"].value, node.attributes["high"].value) == (120, 130)


def test_channels_last_goes_through_quantization() -> None:
    text = f"""{HEAD} q = QuantizeLinear(c, ys, yz) d = DequantizeLinear(q, ys, yz) p = MaxPool<kernel_shape=[2,2]>(d)
        pq = QuantizeLinear(p, ys, yz) pd = DequantizeLinear(pq, ys, yz) vd = DequantizeLinear<axis=0>(v, ws, wz)
        e = Conv(pd, vd) y = QuantizeLinear(e, zs, yz)"""
    model = model_of(text, X, **CONV, v=whole(S, 6, 6, 1, 1, seed=4), zs=F(9))
    found = steps(model, X, fuse_conv, channels_last, fold_qdq)
    assert found == {"fastinfer.QConv": 2, "fastinfer.MaxPool": 1, "Transpose": 2}


def test_float_input_and_output() -> None:
    text = """q = QuantizeLinear(x, xs, xz) xd = DequantizeLinear(q, xs, xz) wd = DequantizeLinear<axis=0>(w, ws, wz)
        y = Conv(xd, wd, b)"""
    constants = {**CONV, "b": np.linspace(-3, 3, 6, dtype=F)}
    inputs = {"x": np.random.default_rng(2).standard_normal((1, 4, 9, 5)).astype(F)}
    assert steps(model_of(text, inputs, "float", **constants), inputs, fuse_conv, fold_qdq, scale=1e-3) == {
        "QuantizeLinear": 1, "fastinfer.QConv": 1,
    }  # fmt: skip


@pytest.mark.parametrize("order", ["d, rd", "rd, d"])
@pytest.mark.parametrize("relu", [False, True])
def test_residual(order: str, relu: bool) -> None:
    inputs = {**X, "r": whole(S, 2, 6, 7, 6, seed=3)}
    end = "t = Relu(s) y = QuantizeLinear(t, zs, zz)" if relu else "y = QuantizeLinear(s, zs, zz)"
    text = f"""{HEAD} a = Relu(c) q = QuantizeLinear(a, ys, yz) d = DequantizeLinear(q, ys, yz)
        rd = DequantizeLinear(r, rs, rz) s = Add({order}) {end}"""
    model = model_of(text, inputs, **CONV, rs=F(0.4), rz=S(-7), zs=F(0.7), zz=U(40))
    assert steps(model, inputs, fuse_conv, fold_qdq) == {"fastinfer.QConv": 1}
    assert model.graph[0].attributes["c_low"].value == 120
    assert ("low" in model.graph[0].attributes) == relu


def test_a_residual_without_a_quantization_of_its_own() -> None:
    inputs = {**X, "r": whole(U, 2, 6, 7, 6, seed=3)}
    text = f"{HEAD} rd = DequantizeLinear(r, ys, yz) s = Add(c, rd) t = Relu(s) y = QuantizeLinear(t, ys, yz)"
    model = model_of(text, inputs, **CONV)
    assert steps(model, inputs, fuse_conv, fold_qdq) == {"fastinfer.QConv": 1}
    assert len(model.graph[0].inputs) == 12


def test_a_sum_that_is_read_twice_stays() -> None:
    inputs = {**X, "r": whole(U, 2, 6, 7, 6, seed=3)}
    text = f"""{HEAD} q = QuantizeLinear(c, ys, yz) d = DequantizeLinear(q, ys, yz) rd = DequantizeLinear(r, ys, yz)
        s = Add(d, rd) t = QuantizeLinear(s, ys, yz) td = DequantizeLinear(t, ys, yz) u = Add(td, d) y = QuantizeLinear(u, ys, yz)"""
    found = steps(model_of(text, inputs, **CONV), inputs, fuse_conv, fold_qdq)
    assert found["fastinfer.QConv"] == 1 and found["Add"] == 2


MATMUL = dict(xs=F(0.02), xz=U(128), w=whole(S, 12, 10, seed=1), ws=np.linspace(0.01, 0.03, 10, dtype=F), wz=np.zeros(10, S),
              w1=F(0.02), z1=S(0), b=np.linspace(-5, 5, 10, dtype=F), ys=F(0.3), yz=U(200), wt=whole(S, 10, 12, seed=2))  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "wd = DequantizeLinear<axis=1>(w, ws, wz) c = MatMul(xd, wd)",
        "wd = DequantizeLinear(w, w1, z1) c = MatMul(xd, wd)",
        "wd = DequantizeLinear<axis=-1>(w, ws, wz) m = MatMul(xd, wd) c = Add(m, b)",
        "wd = DequantizeLinear<axis=0>(wt, ws, wz) c = Gemm<transB=1>(xd, wd, b)",
        "wd = DequantizeLinear<axis=1>(w, ws, wz) m = Gemm<alpha=0.5>(xd, wd, b) c = Relu(m)",
    ],
)
def test_matrix_product(text: str) -> None:
    inputs = {"x": whole(U, 7, 12)}
    model = model_of(f"xd = DequantizeLinear(x, xs, xz) {text} y = QuantizeLinear(c, ys, yz)", inputs, **MATMUL)
    assert steps(model, inputs, fuse_matmul, fold_qdq) == {"fastinfer.QMatMul": 1}


def test_product_of_two_activations() -> None:
    inputs = {"x": whole(U, 2, 7, 12), "z": whole(U, 2, 7, 12, seed=5)}
    text = """xd = DequantizeLinear(x, xs, xz) zd = DequantizeLinear(z, ys, yz) t = Transpose<perm=[0,2,1]>(zd)
        c = MatMul(xd, t) y = QuantizeLinear(c, zs, xz)"""
    model = model_of(text, inputs, **MATMUL, zs=F(5))
    assert steps(model, inputs, fold_qdq) == {"fastinfer.QMatMul": 1, "Transpose": 1}


def test_an_axis_that_is_not_the_columns_stays_float() -> None:
    inputs = {"x": whole(U, 7, 12)}
    text = "xd = DequantizeLinear(x, xs, xz) wd = DequantizeLinear<axis=0>(w, ws, wz) c = MatMul(xd, wd) y = QuantizeLinear(c, ys, yz)"
    constants = {**MATMUL, "ws": np.full(12, 0.02, F), "wz": np.zeros(12, S)}
    assert steps(model_of(text, inputs, **constants), inputs, fold_qdq) == {
        "DequantizeLinear": 1, "MatMul": 1, "QuantizeLinear": 1,
    }  # fmt: skip


def test_moves_meet_and_cancel() -> None:
    inputs = {"x": whole(U, 2, 3, 4)}
    text = """d = DequantizeLinear(x, xs, xz) t = Transpose<perm=[0,2,1]>(d) q = QuantizeLinear(t, xs, xz)
        e = DequantizeLinear(q, xs, xz) r = Reshape(e, to) y = QuantizeLinear(r, xs, xz)"""
    model = model_of(text, inputs, xs=F(0.1), xz=U(7), to=np.array([2, -1]))
    assert check(model, fold_qdq, inputs) == {"Transpose": 1, "Reshape": 1}


def test_concat() -> None:
    inputs = {"x": whole(U, 2, 3, 4), "z": whole(U, 2, 5, 4, seed=1)}
    text = """d = DequantizeLinear(x, xs, xz) e = DequantizeLinear(z, zs, xz) c = Concat<axis=1>(d, e)
        y = QuantizeLinear(c, xs, xz)"""
    model = model_of(text, inputs, xs=F(0.1), xz=U(7), zs=F(0.3))
    assert check(model, fold_qdq, inputs) == {"Concat": 1, "DequantizeLinear": 1, "QuantizeLinear": 1}


def test_concat_of_other_quantizations() -> None:
    inputs = {"x": whole(U, 2, 3, 4), "z": whole(U, 2, 5, 4, seed=1)}
    text = """d = DequantizeLinear(x, xs, xz) e = DequantizeLinear(z, zs, xz) c = Concat<axis=1>(d, e)
        y = QuantizeLinear(c, ys, xz)"""
    model = model_of(text, inputs, xs=F(0.1), xz=U(7), zs=F(0.3), ys=F(0.2))
    assert check(model, fold_qdq, inputs) == {"Concat": 1, "DequantizeLinear": 2, "QuantizeLinear": 2}
    assert check(model, fuse_pointwise, inputs) == {"Concat": 1, "fastinfer.Pointwise": 2}


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("kernel, strides, folds", [(2, "[2,2]", True), (3, "[3,3]", True), (3, "[2,2]", False)])
def test_transposed_convolution(kernel: int, strides: str, folds: bool, per_channel: bool) -> None:
    n = 6 if per_channel else 1
    ws = np.linspace(0.01, 0.03, n, dtype=F) if per_channel else F(0.02)
    values = dict(CONV, w=whole(S, 4, 6, kernel, kernel, seed=1), ws=ws, wz=np.zeros(n, S) if per_channel else S(0),
                  bs=CONV["xs"] * ws, bz=np.zeros(n, np.int32) if per_channel else np.int32(0), ys=F(0.1))  # fmt: skip
    axis = "<axis=1>" if per_channel else ""
    text = f"""xd = DequantizeLinear(x, xs, xz) wd = DequantizeLinear{axis}(w, ws, wz) bd = DequantizeLinear<axis=0>(b, bs, bz)
        c = ConvTranspose<strides={strides}>(xd, wd, bd) r = Relu(c) y = QuantizeLinear(r, ys, yz)"""
    used = {k: v for k, v in values.items() if k not in ("zero", "six")}
    model = model_of(text, X, **used)
    found = steps(model, X, fuse_conv, channels_last, fold_qdq)
    assert ("fastinfer.QConv" in found, "fastinfer.DepthToSpace" in found) == (folds, folds)
    assert ("fastinfer.ConvTranspose" in found) != folds


def test_tables_are_gathered_as_bytes_and_other_weights_become_float() -> None:
    inputs = {"i": np.array([0, 3, 2])}
    text = "d = DequantizeLinear(table, s, z) g = Gather(d, i) n = DequantizeLinear(v, s, z) y = Mul(g, n)"
    model = model_of(text, inputs, "float", table=whole(S, 4, 5), v=whole(S, 5), s=F(0.1), z=S(-3))
    assert check(model, fold_qdq, inputs) == {"Gather": 1, "DequantizeLinear": 1, "Mul": 1}


def test_elementwise_operators_between_bytes_are_one_program() -> None:
    inputs = {"x": whole(U, 5, 40), "z": whole(S, 5, 40, seed=2)}
    text = """d = DequantizeLinear(x, xs, xz) e = DequantizeLinear(z, zs, zz) s = Add(d, e) g = Sigmoid(s)
        y = QuantizeLinear(g, ys, yz)"""
    model = model_of(text, inputs, "int8", xs=F(0.02), xz=U(7), zs=F(0.03), zz=S(-128), ys=F(1 / 256), yz=S(-100))
    assert steps(model, inputs, fold_qdq, fuse_pointwise) == {"fastinfer.Pointwise": 1}


def test_every_reader_dequantizes_for_itself() -> None:
    inputs = {"x": whole(U, 5, 40)}
    text = "d = DequantizeLinear(x, xs, xz) s = Sin(d) t = Softmax(d) y = Add(s, t)"
    model = model_of(text, inputs, "float", xs=F(0.02), xz=U(0))
    found = steps(model, inputs, fold_qdq, fuse_pointwise, scale=1e-5)
    assert found == {"fastinfer.Pointwise": 1, "DequantizeLinear": 1, "Softmax": 1}
