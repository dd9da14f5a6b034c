# SPDX-License-Identifier: Apache-2.0
"""Function bodies and the standard form of a rewritten model."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from fastinfer import passes
from fastinfer.passes import fused, verify

from .graphs import counts, parse, random, run_onnxruntime


def _node(text: str, **inputs: np.ndarray) -> list[np.ndarray]:
    kinds = {"f": "float", "b": "bool"}
    ports = ", ".join(f"{kinds[v.dtype.kind]}[{','.join(map(str, v.shape))}] {k}" for k, v in inputs.items())
    model = parse(f"g ({ports}) => (float y) {{ y = fastinfer.{text} }}".replace("(float y)", "(float[A,B,C,D] y)"))
    model.graph.outputs[0].shape = None
    return verify.run_reference(model, inputs)


def test_convolution_in_both_layouts() -> None:
    x, w, b, r = random(2, 4, 6, 5), random(3, 4, 3, 3), random(3), random(2, 3, 6, 5)
    attributes = 'pads=[1,1,1,1], activation="relu"'
    first = _node(f"Conv<{attributes}>(x, w, b, r)", x=x, w=w, b=b, r=r)[0]
    last = _node(
        f"Conv<{attributes}, channels_last=1>(x, w, b, r)",
        x=x.transpose(0, 2, 3, 1),
        w=w,
        b=b,
        r=r.transpose(0, 2, 3, 1),
    )[0]
    np.testing.assert_allclose(last.transpose(0, 3, 1, 2), first, rtol=1e-6)
    assert (first >= 0).all() and (first == 0).any()


def test_matmul_with_everything() -> None:
    a, b, c, r = random(2, 4, 3), random(5, 4), random(5), random(2, 3, 5)
    y = _node(
        'MatMul<transA=1, transB=1, alpha=0.5, activation="tanh", residual_after=1>(a, b, c, r)', a=a, b=b, c=c, r=r
    )[0]
    np.testing.assert_allclose(y, np.tanh(0.5 * a.swapaxes(1, 2) @ b.T + c) + r, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("heads", [4, 2, 1])
@pytest.mark.parametrize("causal", [0, 1])
def test_attention(heads: int, causal: int) -> None:
    q, k, v = random(2, 4, 3, 8), random(2, heads, 5, 8, seed=1), random(2, heads, 5, 6, seed=2)
    keep = np.random.default_rng(0).random((2, 1, 3, 5)) > 0.3
    keep[..., 0] = True
    y = _node(f"Attention<scale=0.3, causal={causal}>(q, k, v, keep)", q=q, k=k, v=v, keep=keep)[0]
    group = 4 // heads
    scores = np.where(keep, 0.3 * q @ k.repeat(group, 1).swapaxes(2, 3), -np.inf)
    if causal:
        scores = np.where(np.tril(np.ones((3, 5), bool), 2), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    np.testing.assert_allclose(y, weights / weights.sum(-1, keepdims=True) @ v.repeat(group, 1), rtol=1e-5, atol=1e-6)


def test_every_result_of_a_program_has_the_common_shape() -> None:
    model = parse("""g (float[3,1] x, float[4] z) => (float[3,4] y, float[3,4] u) {
        y, u = fastinfer.Pointwise<ops=["neg", "add"], args=[0,-1,-1,0,1,-1], outputs=[0,1]>(x, z) }""")
    model.graph[0].attributes["outputs"]
    y, u = verify.run_reference(model, {"x": random(3, 1), "z": random(4)})
    np.testing.assert_array_equal(y, np.broadcast_to(-random(3, 1), (3, 4)))
    np.testing.assert_array_equal(u, random(3, 1) + random(4))


NET = """g (float[N,3,8,8] x, float[4,3,3,3] w, float[4] s, float[4] b, float[4] m, float[4] v, float[2,4] f, int64[2] axes) => (float[N,2] y) {
    c = Conv<pads=[1,1,1,1]>(x, w) n = BatchNormalization(c, s, b, m, v) r = Relu(n) p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)
    q = ReduceMean<keepdims=0>(p, axes) y = Gemm<transB=1>(q, f) }"""


def _net() -> ir.Model:
    return parse(
        NET, w=random(4, 3, 3, 3), s=random(4), b=random(4, seed=1), m=random(4, seed=2), v=np.abs(random(4, seed=3)) + 1,
        f=random(2, 4), axes=np.array([2, 3]),
    )  # fmt: skip


def test_a_rewritten_model_is_a_valid_standard_model() -> None:
    inputs = {"x": random(2, 3, 8, 8)}
    expected = verify.run_reference(_net(), inputs)
    model = passes.run_pipeline(_net(), verify=True, sample_inputs=inputs)
    assert counts(model)["fastinfer.Conv"] == 1 and counts(model)["BatchNormalization"] == 0
    standard = fused.to_standard(model)
    onnx.checker.check_model(ir.to_proto(standard), full_check=True)
    assert counts(model)["fastinfer.Conv"] == 1  # the model itself is left as it was
    verify.check_results(expected, run_onnxruntime(model, inputs))


def test_names_of_inputs_and_outputs_stay() -> None:
    model = passes.run_pipeline(_net())
    assert [v.name for v in model.graph.inputs] == ["x"] and [v.name for v in model.graph.outputs] == ["y"]
    names = [v.name for v in [*model.graph.inputs, *model.graph.initializers.values()]]
    names += [o.name for n in model.graph for o in n.outputs]
    assert len(names) == len(set(names))


def test_running_the_pipeline_again_changes_no_result() -> None:
    inputs = {"x": random(2, 3, 8, 8)}
    model = passes.run_pipeline(_net())
    expected = verify.run_reference(model, inputs)
    again = passes.run_pipeline(ir.from_proto(ir.to_proto(model)), verify=True, sample_inputs=inputs)
    verify.check_results(expected, verify.run_reference(again, inputs))
    assert counts(again) == counts(model)


def test_a_missing_input_is_an_error() -> None:
    with pytest.raises(ValueError, match="input 2 is required"):
        fused.body(ir.node("Attention", [ir.val("q"), ir.val("k")], domain="fastinfer"))
