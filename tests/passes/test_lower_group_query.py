# SPDX-License-Identifier: Apache-2.0
"""GroupQueryAttention against ONNX Runtime: prompt, decoding, caches that grow and caches of a fixed length."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto as T
from onnx import helper, numpy_helper

import fastinfer as fi

RNG = np.random.default_rng(8)
N, KV, H, MAX = 4, 2, 16, 40


def model(
    past: bool = True, packed: bool = False, rotary: int = 0, dtype: int = T.FLOAT, **attributes: object
) -> onnx.ModelProto:
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    width = (N + 2 * KV if packed else N) * H
    ports = [helper.make_tensor_value_info("q", dtype, ["b", "s", width])]
    if not packed:
        ports += [helper.make_tensor_value_info(n, dtype, ["b", "s", KV * H]) for n in "kv"]
    if past:
        ports += [helper.make_tensor_value_info(n, dtype, ["b", KV, "p", H]) for n in ("pk", "pv")]
    ports += [helper.make_tensor_value_info("len", T.INT32, ["b"]), helper.make_tensor_value_info("total", T.INT32, [])]
    angles = np.outer(np.arange(MAX), 1e4 ** -(np.arange(rotary or 1) / (rotary or 1)))
    caches = [numpy_helper.from_array(f(angles).astype(kind), n) for f, n in ((np.cos, "cos"), (np.sin, "sin"))]
    inputs = ["q", *(["", ""] if packed else ["k", "v"]), *(["pk", "pv"] if past else ["", ""]), "len", "total"]
    if rotary:
        inputs += ["cos", "sin"]
        attributes["do_rotary"] = 1
    node = helper.make_node("GroupQueryAttention", inputs, ["y", "present_k", "present_v"], name="gqa",
                            domain="com.microsoft", num_heads=N, kv_num_heads=KV, **attributes)  # fmt: skip
    outs = [helper.make_tensor_value_info(n, dtype, None) for n in ("y", "present_k", "present_v")]
    graph = helper.make_graph([node], "g", ports, outs, caches if rotary else [])
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def feeds(
    source: onnx.ModelProto, s: int, p: int, lengths: list[int], dtype: type = np.float32
) -> dict[str, np.ndarray]:
    """lengths: of the sequences once the new tokens are in; total: the longest."""
    sizes = {"b": len(lengths), "s": s, "p": p}
    given = {
        i.name: RNG.standard_normal([d.dim_value or sizes[d.dim_param] for d in i.type.tensor_type.shape.dim]).astype(
            dtype
        )
        for i in source.graph.input
    }
    return given | {"len": np.array(lengths, np.int32) - 1, "total": np.array(max(lengths), np.int32)}


def check(
    source: onnx.ModelProto, given: dict[str, np.ndarray], lengths: list[int], s: int, tolerance: float = 2e-5
) -> None:
    compiled = fi.compile(source, strict=True)
    got = compiled.run(given)
    session = onnxruntime.InferenceSession(source.SerializeToString(), providers=["CPUExecutionProvider"])
    want = dict(zip(("y", "present_k", "present_v"), session.run(None, given), strict=True))
    first = s == max(lengths)
    for name, expected in want.items():
        assert got[name].shape == expected.shape and got[name].dtype == expected.dtype
        for b, n in enumerate(lengths):  # behind a sequence's end nothing is promised
            a, e = (
                (x[b, : n if first else s] if name == "y" else x[b, :, :n]).astype(np.float32)
                for x in (got[name], expected)
            )
            np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance, err_msg=f"{name}[{b}]")


CASES = {
    "prompt": (7, 0, [7, 7]), "padded prompt": (7, 0, [7, 4]), "decode": (1, 9, [10, 10]), "decode, ragged": (1, 9, [10, 6]),
    "more tokens": (3, 9, [12]), "fixed cache, prompt": (6, 20, [6, 6]), "fixed cache, decode": (1, 20, [12, 8]),
}  # fmt: skip
FORMS = {
    "plain": {}, "rotary": {"rotary": H // 2}, "interleaved": {"rotary": H // 2, "rotary_interleaved": 1},
    "window": {"local_window_size": 3}, "softcap, scale": {"softcap": 2.0, "scale": 0.3}, "packed": {"packed": True, "rotary": H // 2},
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("form", FORMS)
def test_against_onnxruntime(form: str, case: str) -> None:
    s, p, lengths = CASES[case]
    source = model(**FORMS[form])  # type: ignore[arg-type]
    check(source, feeds(source, s, p, lengths), lengths, s)


def test_without_a_cache_and_in_float16() -> None:
    source = model(past=False, rotary=H // 2)
    check(source, feeds(source, 5, 0, [5, 5]), [5, 5], 5)
    source = model(dtype=T.FLOAT16, rotary=H // 2)
    check(source, feeds(source, 1, 9, [10, 10], np.float16), [10, 10], 1, 5e-3)


def test_what_is_not_taken_is_refused_by_name() -> None:
    with pytest.raises(fi.UnsupportedError, match=r"'gqa' \(com.microsoft.GroupQueryAttention\)"):
        fi.compile(model(smooth_softmax=1))
