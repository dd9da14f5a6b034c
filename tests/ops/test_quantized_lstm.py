# SPDX-License-Identifier: Apache-2.0
"""com.microsoft::DynamicQuantizeLSTM against ONNX Runtime and against a numpy oracle that quantises the same way."""

import numpy as np
import pytest
from support import build, check_node, node_model

rng = np.random.default_rng(3)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def quantised_product(a, w, scale, zero):
    """DynamicQuantizeLinear(a) times an integer matrix, rescaled."""
    lo, hi = np.float32(min(a.min(), 0)), np.float32(max(a.max(), 0))
    step = np.float32(1) if hi == lo else np.float32(hi - lo) / np.float32(255)
    za = np.rint(np.clip(-lo / step, 0, 255))
    q = np.clip(np.rint(a / step) + za, 0, 255)
    return (q - za) @ (w.astype(np.float64) - zero) * (step * scale)


def oracle(x, w, r, b, h0, c0, p, ws, wz, rs, rz, direction):
    T, B, _ = x.shape
    D, H = w.shape[0], r.shape[1]
    y, yh, yc = np.zeros((T, D, B, H)), np.zeros((D, B, H)), np.zeros((D, B, H))
    for d in range(D):
        h, c = (np.zeros((B, H)) if s is None else s[d].astype(np.float64) for s in (h0, c0))
        hole = np.zeros((3, H)) if p is None else p[d].reshape(3, H)
        bias = 0 if b is None else b[d].astype(np.float64).reshape(2, -1).sum(0)
        gates = quantised_product(x.reshape(T * B, -1), w[d], ws[d], wz[d]).reshape(T, B, -1) + bias
        times = range(T - 1, -1, -1) if direction == "reverse" or d == 1 else range(T)
        for t in times:
            i, o, f, g = np.split(gates[t] + quantised_product(h.astype(np.float32), r[d], rs[d], rz[d]), 4, axis=-1)
            c = sigmoid(f + hole[2] * c) * c + sigmoid(i + hole[0] * c) * np.tanh(g)
            h = sigmoid(o + hole[1] * c) * np.tanh(c)
            y[t, d] = h
        yh[d], yc[d] = h, c
    return [v.astype(np.float32) for v in (y, yh, yc)]


def layer(T, B, depth, H, D, dtype=np.int8, by_column=False, zero=0):
    n = (D, 4 * H) if by_column else (D,)
    low = 0 if dtype == np.uint8 else -128

    def weights(k):
        return rng.integers(low, low + 256, (D, k, 4 * H)).astype(dtype)

    def scale(k):
        return (rng.uniform(0.5, 1.5, n) / 128 / np.sqrt(k)).astype(np.float32)

    point = np.full(n, zero, dtype)
    return {"x": rng.standard_normal((T, B, depth), dtype=np.float32), "w": weights(depth), "r": weights(H),
            "b": rng.standard_normal((D, 8 * H), dtype=np.float32) * 0.2, "lens": None, "h0": None, "c0": None, "p": None,
            "ws": scale(depth), "wz": point, "rs": scale(H), "rz": point}  # fmt: skip


CONSTANTS = (1, 2, 3, 7, 8, 9, 10, 11)
FORMS = [
    {},
    {"by_column": True},
    {"dtype": np.uint8, "zero": 131},
    {"dtype": np.int8, "zero": -5},
    {"dtype": np.uint8, "zero": 127, "by_column": True},
]


def check(t, want, D, direction, *, tolerance):
    inputs = list(t.values())
    constants = [i for i in CONSTANTS if inputs[i] is not None]
    check_node("DynamicQuantizeLSTM", inputs, 3, domain="com.microsoft", expected=want, constants=constants,
               direction=direction, hidden_size=t["r"].shape[1], rtol=0, atol=tolerance)  # fmt: skip


# A gate within float rounding of a step's edge lands on the other side: one quantum of one h, 1/255 of its range, through
# one weight of at most 1.5/sqrt(hidden).
TOLERANCE = 2e-3


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_oracle(form, direction):
    D = 2 if direction == "bidirectional" else 1
    for T, B, depth, H in ((1, 1, 1, 1), (6, 1, 10, 20), (5, 3, 33, 16)):
        t = layer(T, B, depth, H, D, **form)
        want = oracle(t["x"], t["w"], t["r"], t["b"], None, None, None, t["ws"], t["wz"], t["rs"], t["rz"], direction)
        check(t, want, D, direction, tolerance=TOLERANCE)


def test_states_and_peepholes():
    t = layer(4, 2, 8, 24, 2)
    t["h0"], t["c0"] = rng.standard_normal((2, 2, 2, 24), dtype=np.float32)
    t["p"] = rng.standard_normal((2, 72), dtype=np.float32)
    t["b"] = None
    want = oracle(
        t["x"], t["w"], t["r"], None, t["h0"], t["c0"], t["p"], t["ws"], t["wz"], t["rs"], t["rz"], "bidirectional"
    )
    check(t, want, 2, "bidirectional", tolerance=TOLERANCE)


@pytest.mark.parametrize("form", FORMS[:3], ids=str)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("lens", [False, True])
def test_runtime(form, direction, lens):
    ort = pytest.importorskip("onnxruntime", reason="the other reference of com.microsoft operators")
    D = 2 if direction == "bidirectional" else 1
    t = layer(12, 1, 40, 48, D, **form)
    t["lens"] = np.array([9], np.int32) if lens else None
    inputs = list(t.values())
    model = node_model("DynamicQuantizeLSTM", inputs, 3, domain="com.microsoft", opset=21, direction=direction, hidden_size=48,
                       constants=[i for i in CONSTANTS if inputs[i] is not None])  # fmt: skip
    model.ir_version = 10
    for output in model.graph.output:
        output.type.tensor_type.elem_type = 1
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    want = session.run(None, {f"x{i}": inputs[i] for i in (0, 4) if inputs[i] is not None})
    check(t, want, D, direction, tolerance=TOLERANCE)


@pytest.mark.parametrize("change", [{"x": 4}, {"lens": np.array([4], np.int32)}, {"lens": np.array([-1], np.int32)}])
def test_bad_calls(change):
    t = layer(3, 1, 5, 8, 1)
    t["lens"] = np.array([2], np.int32)
    inputs = list(t.values())
    model = build(node_model("DynamicQuantizeLSTM", inputs, 3, domain="com.microsoft", hidden_size=8,
                             constants=[i for i in CONSTANTS if inputs[i] is not None]))  # fmt: skip
    feeds = {"x0": t["x"], "x4": t["lens"]}
    feeds.update({"x0": np.zeros((3, 1, 4), np.float32)} if "x" in change else {"x4": change["lens"]})
    with pytest.raises(Exception, match="under_test"):
        model.run(feeds)
