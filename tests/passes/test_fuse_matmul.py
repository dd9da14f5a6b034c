# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from fastinfer.passes.fuse_matmul import fuse_matmul, unflatten_matmul

from .graphs import check, parse, random

FORMS = [
    "m = MatMul(x, w) y = Add(m, b)",
    "m = MatMul(x, w) y = Add(b, m)",
    "m = MatMul(x, w) s = Mul(m, k) y = Add(s, b)",
    "m = MatMul(x, w) s = Div(m, k) y = Add(s, b)",
    "m = MatMul(x, w) a = Add(m, b) y = Gelu(a)",
    "m = MatMul(x, w) a = Add(m, b) y = Add(a, r)",
    "m = MatMul(x, w) a = Add(m, b) c = Add(a, r) y = Relu(c)",
    "m = MatMul(x, w) a = Add(m, b) c = Swish(a) y = Add(r, c)",
    "m = MatMul(x, w) y = Add(m, r)",
    "m = MatMul(x, w) y = Tanh(m)",
    "t = Transpose<perm=[1,0]>(v) m = MatMul(x, t) y = Add(m, b)",
    "t = Transpose<perm=[0,2,1]>(u) m = MatMul(t, w) y = Add(m, b)",
    "y = com.microsoft.FusedMatMul<transB=1, alpha=0.5>(x, v)",
]


@pytest.mark.parametrize("text", FORMS)
def test_three_axes(text: str) -> None:
    constants = {"w": random(6, 5), "v": random(5, 6), "b": random(5, seed=1), "k": np.array(0.25, np.float32)}
    kinds = "".join(f", float[{','.join(map(str, v.shape))}] {k}" for k, v in constants.items())
    model = parse(
        f"g (float[2,3,6] x, float[2,6,3] u, float[2,3,5] r{kinds}) => (float[2,3,5] y) {{ {text} }}", **constants
    )
    inputs = {"x": random(2, 3, 6), "u": random(2, 6, 3), "r": random(2, 3, 5, seed=3)}
    if "microsoft" in text:  # onnx.reference does not know it: only what became of it can be run
        fuse_matmul(model)
        from fastinfer.passes import verify

        found = verify.run_reference(model, inputs)[0]
        np.testing.assert_allclose(found, 0.5 * inputs["x"] @ constants["v"].T, rtol=1e-5, atol=1e-6)
        return
    assert check(model, fuse_matmul, inputs) == {"fastinfer.MatMul": 1}


@pytest.mark.parametrize(
    "gemm",
    [
        "Gemm(x, w, b)", "Gemm<transB=1>(x, v, b)", "Gemm<transA=1>(u, w, b)", "Gemm<alpha=0.5, beta=2.0>(x, w, b)", "Gemm(x, w)",
        "Gemm(x, w, one)", "Gemm(x, w, row)",
    ],
)  # fmt: skip
def test_gemm(gemm: str) -> None:
    constants = {"w": random(6, 5), "v": random(5, 6), "b": random(5, seed=1), "one": random(1), "row": random(1, 5)}
    kinds = "".join(f", float[{','.join(map(str, v.shape))}] {k}" for k, v in constants.items())
    model = parse(f"g (float[3,6] x, float[6,3] u{kinds}) => (float[3,5] y) {{ c = {gemm} y = Relu(c) }}", **constants)
    assert check(model, fuse_matmul, {"x": random(3, 6), "u": random(6, 3)}) == {"fastinfer.MatMul": 1}


def test_a_bias_behind_a_reshape_of_the_rows() -> None:
    model = parse(
        """g (float[6,4] x, float[4,5] w, float[5] b, int64[3] shape) => (float[2,3,5] y) {
        m = MatMul(x, w) r = Reshape(m, shape) a = Add(r, b) y = Relu(a) }""",
        w=random(4, 5), b=random(5), shape=np.array([2, 3, 5]),
    )  # fmt: skip
    assert check(model, fuse_matmul, {"x": random(6, 4)}) == {"fastinfer.MatMul": 1, "Reshape": 1}


def test_a_plain_product_stays_standard() -> None:
    model = parse("g (float[2,3] x, float[3,4] w) => (float[2,4] y) { y = MatMul(x, w) }", w=random(3, 4))
    assert check(model, fuse_matmul, {"x": random(2, 3)}) == {"MatMul": 1}


@pytest.mark.parametrize("other", ["2,3,1", "1", "3,1"])
def test_what_is_no_bias_stays(other: str) -> None:
    model = parse(
        f"g (float[2,3,4] x, float[4,5] w, float[{other}] c) => (float[2,3,5] y) {{ m = MatMul(x, w) y = Add(m, c) }}",
        w=random(4, 5),
    )
    inputs = {"x": random(2, 3, 4), "c": random(*map(int, other.split(",")))}
    assert check(model, fuse_matmul, inputs) == {"MatMul": 1, "Add": 1}


@pytest.mark.parametrize("product", ["MatMul(f, w)", "Gemm(f, w, b)", "Gemm<transB=1>(f, v, b)"])
def test_flattened_rows_are_unflattened(product: str) -> None:
    model = parse(
        f"""g (float[N,S,4] x, float[4,5] w, float[5,4] v, float[5] b, int64[2] flat) => (float[M,5] y) {{
        f = Reshape(x, flat) y = {product} }}""",
        w=random(4, 5), v=random(5, 4), b=random(5), flat=np.array([-1, 4]),
    )  # fmt: skip
    after = check(model, unflatten_matmul, {"x": random(2, 3, 4)})
    assert after["Reshape"] == 1 and after["MatMul"] == 1 and model.graph[-1].op_type == "Reshape"
