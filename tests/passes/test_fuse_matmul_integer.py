# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from fastinfer.passes.fuse_matmul_integer import fuse_matmul_integer

from .graphs import check, parse, random

CONSTANTS = {
    "w": np.random.default_rng(0).integers(-128, 128, (12, 10)).astype(np.int8), "ws": np.linspace(0.01, 0.03, 10, dtype=np.float32),
    "wz": np.zeros(10, np.int8), "w1": np.array(0.02, np.float32), "z1": np.array(3, np.int8), "b": random(10),
}  # fmt: skip
KINDS = "int8[12,10] w, float[10] ws, int8[10] wz, float w1, int8 z1, float[10] b"
HEAD = "q, s, z = DynamicQuantizeLinear(x) i = MatMulInteger(q, w, z, wz) c = Cast<to=1>(i)"


def _check(text: str) -> dict[str, int]:
    model = parse(f"g (float[2,7,12] x, {KINDS}) => (float[2,7,10] y) {{ {text} }}", **CONSTANTS)
    return check(model, fuse_matmul_integer, {"x": random(2, 7, 12)}, tolerance=1e-5)


@pytest.mark.parametrize("tail", ["f = Mul(s, ws) y = Mul(c, f)", "f = Mul(ws, s) y = Mul(f, c)",
                                  "f = Mul(s, ws) m = Mul(c, f) y = Add(b, m)", "f = Mul(s, w1) m = Mul(c, f) y = Add(m, b)"])  # fmt: skip
def test_scale_and_bias_go_in(tail: str) -> None:
    assert _check(f"{HEAD} {tail}") == {"DynamicQuantizeLinear": 1, "fastinfer.QMatMul": 1}


def test_other_sums_stay() -> None:
    found = _check(f"{HEAD} f = Mul(s, ws) m = Mul(c, f) y = Add(m, m)")
    assert found == {"DynamicQuantizeLinear": 1, "fastinfer.QMatMul": 1, "Add": 1}
    assert "fastinfer.QMatMul" not in _check(f"{HEAD} y = Mul(c, b)")


def test_one_quantization_serves_several_products() -> None:
    found = _check(
        f"{HEAD} f = Mul(s, ws) m = Mul(c, f) j = MatMulInteger(q, w, z, z1) d = Cast<to=1>(j) g = Mul(s, w1) n = Mul(d, g) y = Sub(m, n)"
    )
    assert found == {"DynamicQuantizeLinear": 1, "fastinfer.QMatMul": 2, "Sub": 1}
