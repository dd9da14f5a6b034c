# SPDX-License-Identifier: Apache-2.0
"""LSTM, GRU, RNN against onnx.reference (LSTM, RNN with default activations) and a float64 oracle for all the rest."""

import ml_dtypes
import numpy as np
import pytest
from support import build, check_node, node_model, run_everywhere

import fastinfer as fi

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
FUNCTIONS = {
    "sigmoid": lambda x, a, b: 1 / (1 + np.exp(-x)),
    "tanh": lambda x, a, b: np.tanh(x),
    "relu": lambda x, a, b: np.maximum(x, 0),
    "hardsigmoid": lambda x, a, b: np.clip(a * x + b, 0, 1),
    "elu": lambda x, a, b: np.where(x < 0, a * np.expm1(x), x),
    "softsign": lambda x, a, b: x / (1 + np.abs(x)),
    "affine": lambda x, a, b: a * x + b,
}
DEFAULTS = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"], "RNN": ["tanh"]}


def cell(op, x, h, c, w, r, wb, rb, p, f, clip, lbr, input_forget):
    """One step of one sample in float64, straight from ONNX's equations."""
    n = len(h)
    bound = (lambda v: np.clip(v, -clip, clip)) if clip else (lambda v: v)
    if op == "RNN":
        return f[0](bound(w @ x + wb + r @ h + rb)), c
    if op == "GRU":
        a = w[: 2 * n] @ x + wb[: 2 * n] + r[: 2 * n] @ h + rb[: 2 * n]
        z, reset = f[0](bound(a[:n])), f[0](bound(a[n:]))
        if lbr:
            inner = w[2 * n :] @ x + wb[2 * n :] + reset * (r[2 * n :] @ h + rb[2 * n :])
        else:
            inner = w[2 * n :] @ x + wb[2 * n :] + r[2 * n :] @ (reset * h) + rb[2 * n :]
        return (1 - z) * f[1](bound(inner)) + z * h, c
    i, o, fg, g = np.split(w @ x + wb + r @ h + rb, 4)
    i = f[0](bound(i + p[:n] * c))
    fg = 1 - i if input_forget else f[0](bound(fg + p[2 * n :] * c))
    c = fg * c + i * f[1](bound(g))
    return f[0](bound(o + p[n : 2 * n] * c)) * f[2](c), c


def oracle(op, x, w, r, b=None, lens=None, h0=None, c0=None, p=None, *, direction="forward", activations=None, alpha=(),
           beta=(), clip=0, linear_before_reset=0, input_forget=0, hidden_size=None):  # fmt: skip
    T, B, _ = x.shape
    D, G, H = w.shape[0], GATES[op], r.shape[2]
    names = activations or DEFAULTS[op] * D
    alpha, beta, f = list(alpha), list(beta), []
    for name in names:
        params = (alpha.pop(0) if alpha and name in ("hardsigmoid", "elu", "affine") else 0,
                  beta.pop(0) if beta and name in ("hardsigmoid", "affine") else 0)  # fmt: skip
        f.append(lambda v, fn=FUNCTIONS[name], k=params: fn(v, *k))
    f = [f[i * len(f) // D : (i + 1) * len(f) // D] for i in range(D)]
    y = np.zeros((T, D, B, H))
    yh, yc = np.zeros((D, B, H)), np.zeros((D, B, H))
    for d in range(D):
        for n in range(B):
            length = T if lens is None else lens[n]
            times = range(length)
            times = reversed(times) if direction == "reverse" or d == 1 else times
            h = np.zeros(H) if h0 is None else h0[d, n].astype(np.float64)
            c = np.zeros(H) if c0 is None else c0[d, n].astype(np.float64)
            bias = np.zeros(2 * G * H) if b is None else b[d].astype(np.float64)
            hole = np.zeros(3 * H) if p is None else p[d].astype(np.float64)
            for t in times:
                h, c = cell(op, x[t, n].astype(np.float64), h, c, w[d].astype(np.float64), r[d].astype(np.float64),
                            bias[: G * H], bias[G * H :], hole, f[d], clip, linear_before_reset, input_forget)  # fmt: skip
                y[t, d, n] = h
            yh[d, n], yc[d, n] = h, c
    outs = [y, yh, yc] if op == "LSTM" else [y, yh]
    return [o.astype(np.float32) for o in outs]


def tensors(op, T, B, F, H, D, seed=0):
    rng = np.random.default_rng(seed)
    G = GATES[op]

    def mk(*s):
        return (rng.standard_normal(s) * 0.4).astype(np.float32)

    return {"x": mk(T, B, F), "w": mk(D, G * H, F), "r": mk(D, G * H, H), "b": mk(D, 2 * G * H),
            "lens": rng.integers(1, T + 1, B).astype(np.int32), "h0": mk(D, B, H), "c0": mk(D, B, H), "p": mk(D, 3 * H)}  # fmt: skip


def check(op, t, use, *, constant=True, **attrs):
    lstm = op == "LSTM"
    given = {k: (t[k] if k in use else None) for k in ("b", "lens", "h0")}
    extra = {k: (t[k] if k in use else None) for k in ("c0", "p")} if lstm else {}
    inputs = [t["x"], t["w"], t["r"], *given.values(), *extra.values()]
    names = {k: v for k, v in attrs.items() if k not in ("activation_alpha", "activation_beta")}
    expected = oracle(op, t["x"], t["w"], t["r"], *given.values(), *extra.values(), alpha=attrs.get("activation_alpha", ()),
                      beta=attrs.get("activation_beta", ()), **names)  # fmt: skip
    constants = [i for i in (1, 2, 3, 7) if i < len(inputs) and inputs[i] is not None] if constant else ()
    check_node(op, inputs, 3 if lstm else 2, expected=expected, constants=constants, atol=2e-5, rtol=1e-4,
               hidden_size=t["r"].shape[2], **attrs)  # fmt: skip


SIZES = [(1, 1, 1, 1), (5, 3, 7, 20), (4, 2, 33, 48), (3, 9, 16, 16)]


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_plain(op, size, direction):
    T, B, F, H = size
    D = 2 if direction == "bidirectional" else 1
    check(op, tensors(op, T, B, F, H, D), {"b"}, direction=direction)


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize(
    "use", [{"b", "h0", "c0"}, {"b", "lens"}, {"lens", "h0", "c0", "p"}, {"p", "b"}, set()], ids=str
)
@pytest.mark.parametrize("op", GATES)
def test_optional_inputs(op, use, constant):
    t = tensors(op, 6, 4, 10, 18, 2)
    check(op, t, use, direction="bidirectional", constant=constant)


@pytest.mark.parametrize("use", [{"b", "h0"}, {"h0", "lens"}])
def test_linear_before_reset(use):
    check("GRU", tensors("GRU", 5, 3, 8, 21, 2), use, direction="bidirectional", linear_before_reset=1)


def test_clip_and_input_forget():
    check("LSTM", tensors("LSTM", 5, 2, 8, 17, 1), {"b", "p"}, clip=0.3, input_forget=1)
    check("GRU", tensors("GRU", 5, 2, 8, 17, 1), {"b"}, clip=0.3)


def test_activations_with_parameters():
    t = tensors("LSTM", 4, 2, 6, 19, 2)
    check("LSTM", t, {"b"}, direction="bidirectional",
          activations=["hardsigmoid", "softsign", "elu", "sigmoid", "affine", "relu"],
          activation_alpha=[0.3, 0.7, 1.2], activation_beta=[0.4, 0.1])  # fmt: skip


@pytest.mark.parametrize("op", GATES)
def test_batch_first(op):
    t = tensors(op, 5, 3, 6, 10, 2)
    y = oracle(op, t["x"], t["w"], t["r"], t["b"], None, t["h0"], direction="bidirectional")
    swap = [y[0].transpose(2, 0, 1, 3), *(s.transpose(1, 0, 2) for s in y[1:])]
    check_node(op, [t["x"].transpose(1, 0, 2).copy(), t["w"], t["r"], t["b"], None, t["h0"].transpose(1, 0, 2).copy()], len(y),
               expected=swap, constants=(1, 2, 3), atol=2e-5, rtol=1e-4, layout=1, direction="bidirectional",
               hidden_size=10)  # fmt: skip


@pytest.mark.parametrize("op", GATES)
def test_company_does_not_change_bits(op):
    t = tensors(op, 6, 7, 12, 40, 2)
    attrs = {"direction": "bidirectional", "hidden_size": 40}
    whole = node_model(op, [t["x"], t["w"], t["r"], t["b"]], 2, constants=(1, 2, 3), **attrs)
    together = dict(run_everywhere(whole, {"x0": t["x"]}))
    for n in range(7):
        for label, outputs in run_everywhere(whole, {"x0": t["x"][:, n : n + 1].copy()}):
            np.testing.assert_array_equal(outputs[0], together[label][0][:, :, n : n + 1], err_msg=label)


def test_what_does_not_fit_is_said():
    t = tensors("LSTM", 4, 2, 6, 8, 1)
    with pytest.raises(fi.ModelError, match="hidden_size 9 does not fit"):
        build(node_model("LSTM", [t["x"], t["w"], t["r"]], 1, constants=(1, 2), hidden_size=9))
    m = build(node_model("LSTM", [t["x"], t["w"], t["r"], None, t["lens"]], 1, constants=(1, 2), hidden_size=8))
    with pytest.raises(fi.InputError, match="outside what the operator allows"):
        m.run({"x0": t["x"], "x4": np.array([2, 5], np.int32)})
    with pytest.raises(fi.InputError, match="needed rank 3 with 6 features"):
        m.run({"x0": t["x"][..., :5].copy(), "x4": t["lens"]})
    with pytest.raises(fi.ModelError, match="unknown activation"):
        build(node_model("RNN", [t["x"]] * 3, 1, activations=["cube"]))


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_bf16(op, size, direction):
    """precision="bf16" rounds X and W; the recurrence stays float32."""
    T, B, F, H = size
    t = tensors(op, T, B, F, H, 2 if direction == "bidirectional" else 1)
    cut = {**t, **{k: t[k].astype(ml_dtypes.bfloat16).astype(np.float32) for k in ("x", "w")}}
    want = oracle(op, cut["x"], cut["w"], t["r"], t["b"], direction=direction)
    check_node(op, [t["x"], t["w"], t["r"], t["b"]], len(want), expected=want, constants=(1, 2, 3), atol=2e-5, rtol=1e-4,
               domain="fastinfer", precision="bf16", direction=direction, hidden_size=H)  # fmt: skip
