# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from fastinfer.passes.fuse_attention import fuse_attention

from .graphs import check, parse, random

B, N, S, T, H = 2, 4, 5, 7, 8  # batch, heads, queries, keys, size
BNSH = {"q": random(B, N, S, H), "k": random(B, N, T, H, seed=1), "v": random(B, N, T, H, seed=2)}
MASKS = {
    "m": random(B, 1, S, T, seed=3), "keep": np.random.default_rng(4).random((B, 1, S, T)) > 0.3,
    "padding": np.random.default_rng(5).random((B, 1, 1, T)) > 0.3,
}  # fmt: skip
NUMBERS = {"c": 8**-0.5, "root": 8**0.5, "half": 8**-0.25, "low": -3.4e38, "ninf": -np.inf, "zero": 0.0, "cap": 5.0}


def _model(body: str, heads: int = N, out: str = "O1,O2,O3,O4", **inputs: np.ndarray):
    inputs = inputs or {**BNSH, **MASKS}
    kinds = {"f": "float", "b": "bool"}
    ports = ", ".join(
        f"{kinds[v.dtype.kind]}[{','.join('B' if i == 0 and d == B else str(d) for i, d in enumerate(v.shape))}] {k}"
        for k, v in inputs.items()
    )
    numbers = {k: np.array(v, np.float32) for k, v in NUMBERS.items()}
    shapes = {"kv5": [0, 0, N // heads, 0, 0], "kv4": [B, N, T, H], "three": [-1, S, H], "rows": [B, S, N * H]}
    arrays = {**numbers, **{k: np.array(v) for k, v in shapes.items()}}
    declared = "".join(
        f", {'float' if v.dtype == np.float32 else 'int64'}[{','.join(map(str, v.shape))}] {k}"
        for k, v in arrays.items()
    )
    return parse(f"g ({ports}{declared}) => (float[{out}] y) {{ {body} }}", **arrays), inputs


KT = "kt = Transpose<perm=[0,1,3,2]>(k)"
FORMS = {
    "scores scaled": f"{KT} s = MatMul(q, kt) a = Mul(s, c) p = Softmax(a) y = MatMul(p, v)",
    "scores divided": f"{KT} s = MatMul(q, kt) a = Div(s, root) p = Softmax(a) y = MatMul(p, v)",
    "query scaled": f"{KT} u = Mul(q, c) s = MatMul(u, kt) p = Softmax<axis=3>(s) y = MatMul(p, v)",
    "key scaled": f"{KT} u = Mul(c, kt) s = MatMul(q, u) p = Softmax(s) y = MatMul(p, v)",
    "both scaled": f"{KT} u = Mul(q, half) w = Mul(kt, half) s = MatMul(u, w) p = Softmax(s) y = MatMul(p, v)",
    "not scaled": f"{KT} s = MatMul(q, kt) p = Softmax(s) y = MatMul(p, v)",
    "added mask": f"{KT} s = MatMul(q, kt) a = Mul(s, c) b = Add(a, m) p = Softmax(b) y = MatMul(p, v)",
    "mask first": f"{KT} s = MatMul(q, kt) a = Div(s, root) b = Add(m, a) p = Softmax(b) y = MatMul(p, v)",
    "two masks": f"{KT} s = MatMul(q, kt) f = Where(padding, zero, low) b = Add(s, m) d = Add(b, f) p = Softmax(d) y = MatMul(p, v)",
    "filled where true": f"{KT} s = MatMul(q, kt) n = Not(padding) b = Where(n, low, s) p = Softmax(b) y = MatMul(p, v)",
    "filled where false": f"{KT} s = MatMul(q, kt) a = Mul(s, c) b = Where(keep, a, ninf) p = Softmax(b) y = MatMul(p, v)",
    "NaN guard": f"""{KT} s = MatMul(q, kt) b = Where(keep, s, ninf) p = Softmax(b) n = IsNaN(p) g = Where(n, zero, p)
        y = MatMul(g, v)""",
    "clamped": f"{KT} s = MatMul(q, kt) b = Add(s, m) x = Max(b, low) p = Softmax(x) y = MatMul(p, v)",
    "softcap": f"{KT} s = MatMul(q, kt) a = Mul(s, c) d = Div(a, cap) t = Tanh(d) e = Mul(t, cap) b = Add(e, m) p = Softmax(b) y = MatMul(p, v)",
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str) -> None:
    model, inputs = _model(FORMS[form])
    after = check(model, fuse_attention, inputs)
    assert after["fastinfer.Attention"] == 1 and after["Softmax"] == 0 and after["MatMul"] == 0


@pytest.mark.parametrize(("open_", "mask"), [(True, False), (False, True)], ids=["hides nothing", "hides a key"])
def test_a_constant_mask_that_hides_nothing_is_left_out(open_: bool, mask: bool) -> None:
    ports = f"float[{B},{N},{S},{H}] q, float[{B},{N},{T},{H}] k, float[{B},{N},{T},{H}] v"
    keep, added = np.ones((S, T), bool), np.zeros((1, 1, S, T), np.float32)
    keep[2, 3] = open_
    body = f"""{KT} s = MatMul(q, kt) a = Add(s, added) b = Where(keep, a, ninf) p = Softmax(b) y = MatMul(p, v)"""
    model = parse(f"g ({ports}, bool[{S},{T}] keep, float[1,1,{S},{T}] added, float ninf) => (float[{B},{N},{S},{H}] y) {{ {body} }}",
                  keep=keep, added=added, ninf=np.array(-np.inf, np.float32))  # fmt: skip
    check(model, fuse_attention, BNSH)
    (node,) = (n for n in model.graph if n.op_type == "Attention")
    assert (len(node.inputs) > 3 and node.inputs[3] is not None) == mask


def test_a_closed_row_behind_a_guard_gives_zero() -> None:
    model, inputs = _model(FORMS["NaN guard"])
    closed = {**inputs, "keep": np.zeros_like(inputs["keep"])}
    check(model, fuse_attention, closed)
    assert model.graph[-1].attributes["zero_empty"].value == 1


def _bsnh() -> dict[str, np.ndarray]:
    return {k: np.ascontiguousarray(v.transpose(0, 2, 1, 3)) for k, v in BNSH.items()}


@pytest.mark.parametrize(
    "pre", ["u = Transpose<perm=[0,2,1,3]>(k) kt = Transpose<perm=[0,1,3,2]>(u)", "kt = Transpose<perm=[0,2,3,1]>(k)"]
)
def test_head_transposes_become_layouts(pre: str) -> None:
    body = f"""qt = Transpose<perm=[0,2,1,3]>(q) vt = Transpose<perm=[0,2,1,3]>(v) {pre} s = MatMul(qt, kt) a = Mul(s, c)
        p = Softmax(a) o = MatMul(p, vt) y = Transpose<perm=[0,2,1,3]>(o)"""
    model, inputs = _model(body, **_bsnh())
    assert check(model, fuse_attention, inputs) == {"fastinfer.Attention": 1}
    assert [model.graph[0].attributes[f"{x}_layout"].value for x in "qkvo"] == ["BSNH"] * 4


def test_keys_that_come_transposed() -> None:
    inputs = {**BNSH, "k": np.ascontiguousarray(BNSH["k"].transpose(0, 1, 3, 2))}
    model, inputs = _model("s = MatMul(q, k) p = Softmax(s) y = MatMul(p, v)", **inputs)
    assert check(model, fuse_attention, inputs) == {"fastinfer.Attention": 1}
    assert model.graph[0].attributes["k_layout"].value == "BNHS"


def test_repeated_heads_are_left_out() -> None:
    inputs = {"q": BNSH["q"], "k": random(B, 2, T, H, seed=1), "v": random(B, 2, T, H, seed=2)}
    repeat = "".join(
        f"{x}1 = Unsqueeze({x}, two) {x}2 = Expand({x}1, wide) {x}3 = Reshape({x}2, narrow) " for x in "kv"
    )
    text = f"""g (float[{B},{N},{S},{H}] q, float[{B},2,{T},{H}] k, float[{B},2,{T},{H}] v, int64[1] two, int64[5] wide, int64[4] narrow)
        => (float[{B},{N},{S},{H}] y) {{ {repeat} kt = Transpose<perm=[0,1,3,2]>(k3) s = MatMul(q, kt) p = Softmax(s) y = MatMul(p, v3) }}"""
    model = parse(text, two=np.array([2]), wide=np.array([B, 2, 2, T, H]), narrow=np.array([B, N, T, H]))
    after = check(model, fuse_attention, inputs)
    assert after == {"fastinfer.Attention": 1}
    assert model.graph[0].inputs[1].name == "k"


def test_batch_and_heads_merged() -> None:
    text = f"""g (float[B,{N},{S},{H}] q, float[B,{N},{S},{H}] k, float[B,{N},{S},{H}] v, float[B,1,1,{S}] m, int64[3] three, int64[4] four,
        int64[3] square) => (float[B,{N},{S},{H}] y) {{
        q3 = Reshape(q, three) k3 = Reshape(k, three) v3 = Reshape(v, three) kt = Transpose<perm=[0,2,1]>(k3) s = MatMul(q3, kt)
        s4 = Reshape(s, four) a = Add(s4, m) p = Softmax(a) p3 = Reshape(p, square) o = MatMul(p3, v3) y = Reshape(o, back) }}"""
    text = text.replace("int64[3] square)", "int64[3] square, int64[4] back)")
    model = parse(
        text,
        three=np.array([-1, S, H]),
        four=np.array([-1, N, S, S]),
        square=np.array([-1, S, S]),
        back=np.array([-1, N, S, H]),
    )
    inputs = {"q": BNSH["q"], "k": random(B, N, S, H, seed=6), "v": random(B, N, S, H, seed=7), "m": random(B, 1, 1, S)}
    assert check(model, fuse_attention, inputs) == {"fastinfer.Attention": 1}


@pytest.mark.parametrize(
    "body",
    [
        f"{KT} s = MatMul(q, kt) p = Softmax<axis=2>(s) y = MatMul(p, v)",  # over queries
        f"{KT} s = MatMul(q, kt) a = Add(s, m) b = Mul(a, c) p = Softmax(b) y = MatMul(p, v)",  # the mask is scaled too
        f"{KT} s = MatMul(q, kt) p = Softmax(s) d = Mul(p, c) y = MatMul(d, v)",  # weights changed after the softmax
    ],
)
def test_other_computations_stay(body: str) -> None:
    model, inputs = _model(body)
    assert check(model, fuse_attention, inputs)["fastinfer.Attention"] == 0


def test_a_mask_with_merged_heads_is_left_alone() -> None:
    """DeBERTa adds its relative positions to (B·N, S, T), before the split: they would not fit (B, N, S, T)."""
    inputs = {
        "q": random(B * N, S, H),
        "k": random(B * N, H, T, seed=1),
        "v": random(B * N, T, H, seed=2),
        "relative": random(B * N, S, T, seed=3),
    }
    ports = ", ".join(
        f"float[{','.join('R' if i == 0 else str(d) for i, d in enumerate(v.shape))}] {k}" for k, v in inputs.items()
    )
    constants = {"split": np.array([-1, N, S, T]), "merge": np.array([-1, S, T])}
    declared = "".join(f", int64[{len(v)}] {k}" for k, v in constants.items())
    body = """s = MatMul(q, k) a = Add(s, relative) four = Reshape(a, split) p = Softmax(four) three = Reshape(p, merge)
        y = MatMul(three, v)"""
    model = parse(f"g ({ports}{declared}) => (float[O1,O2,O3] y) {{ {body} }}", **constants)
    assert check(model, fuse_attention, inputs)["fastinfer.Attention"] == 0
