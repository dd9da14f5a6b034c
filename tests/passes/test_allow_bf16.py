# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np

import fastinfer as fi
from fastinfer import passes
from fastinfer.passes.allow_bf16 import allow_bf16

from .graphs import check, counts, parse, random

MLP = "g (float[b,3,8] x, float[8,16] w, float[16,4] v) => (float[b,3,4] y) {{ h = MatMul(x, w) r = {act}(h) y = MatMul(r, v) }}"


def test_products_with_constants_are_marked() -> None:
    model = parse(
        """g (float[b,8] x, float[8,16] w, float[b,16] v) => (float[b,b] y) {
        h = MatMul(x, w) t = Transpose<perm=[1, 0]>(v) y = MatMul(h, t) }""",
        w=random(8, 16),
    )
    after = check(model, allow_bf16, {"x": random(3, 8), "v": random(3, 16)})
    assert after == {"fastinfer.MatMul": 1, "Transpose": 1, "MatMul": 1}
    assert model.graph[0].attributes["precision"].value == "bf16"


def test_float32_never_sees_it() -> None:
    for precision, marked in (("fp32", 0), ("bf16", 2)):
        model = parse(MLP.format(act="Relu"), w=random(8, 16), v=random(16, 4))
        passes.run_pipeline(model, precision=precision)
        assert sum("precision" in n.attributes for n in model.graph) == marked
    assert counts(model) == {"fastinfer.MatMul": 2}


def test_the_whole_way() -> None:
    import ml_dtypes
    import onnx_ir as ir

    w, v, x = random(8, 16), random(16, 4, seed=1), random(2, 3, 8, seed=2)
    source = ir.to_proto(parse(MLP.format(act="Relu"), w=w, v=v))
    (exact,) = fi.compile(source).run({"x": x}).values()
    (got,) = fi.compile(source, precision="bf16").run({"x": x}).values()
    cut = lambda a: a.astype(ml_dtypes.bfloat16).astype(np.float64)  # noqa: E731
    want = cut(np.maximum(cut(x) @ cut(w), 0).astype(np.float32)) @ cut(v)
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)
    gap = np.abs(got - exact).max() / np.abs(exact).max()
    assert 1e-5 < gap < 1e-2
