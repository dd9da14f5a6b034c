# SPDX-License-Identifier: Apache-2.0
"""fastinfer::Attention, the standard Attention and RotaryEmbedding."""

import numpy as np
import pytest
from support import ISAS, build, check_node, check_same_bits, node_model, run_everywhere

from kernels.attention.samples import EDGES

rng = np.random.default_rng(7)


def normal(*shape):
    return rng.standard_normal(shape, dtype=np.float32)


def attend(q, k, v, mask=None, *, causal=False, scale=1.0, softcap=0.0, offset=None, left=-1, right=-1, empty=np.nan):
    """Float64 oracle on [B,N,S,H]; a boolean mask keeps what is true. Returns (output, probabilities)."""
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    group = q.shape[1] // k.shape[1] if k.shape[1] else 1
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    s = scale * q @ k.swapaxes(-1, -2)
    if softcap:
        s = softcap * np.tanh(s / softcap)
    sq, sk = s.shape[-2:]
    if mask is not None:
        s = np.where(mask, s, -np.inf) if mask.dtype == bool else s + mask
    at = np.arange(sq)[:, None] + (sk - sq if offset is None else offset) - np.arange(sk)
    if causal:
        s = np.where(at >= 0, s, -np.inf)
    if left >= 0:
        s = np.where(at <= left, s, -np.inf)
    if right >= 0:
        s = np.where(-at <= right, s, -np.inf)
    if sk == 0:
        return s @ v, s
    top = s.max(-1, keepdims=True, initial=-np.inf)
    e = np.exp(s - np.where(np.isinf(top), 0, top))
    with np.errstate(invalid="ignore"):
        p = e / e.sum(-1, keepdims=True)
    p = np.where(np.isneginf(top), empty, p)
    return p @ v, p


def operands(b, n, nk, sq, sk, d, dv=None):
    return normal(b, n, sq, d), normal(b, nk, sk, d), normal(b, nk, sk, dv or d)


def fused(q, k, v, mask=None, *, layouts=("BNSH",) * 4, want=None, isas=None, **attrs):
    """Check fastinfer::Attention with operands given as BNSH and handed over in other layouts."""
    order = {"BNSH": (0, 1, 2, 3), "BSNH": (0, 2, 1, 3), "BNHS": (0, 1, 3, 2)}
    given = [np.ascontiguousarray(x.transpose(order[at])) for x, at in zip((q, k, v), layouts, strict=False)]
    if want is None:
        want = attend(q, k, v, mask, **attrs)[0]
    want = want.transpose(order[layouts[3]]).astype(np.float32)
    names = dict(zip(("q_layout", "k_layout", "v_layout", "o_layout"), layouts, strict=True))
    attrs = {k: int(v) if isinstance(v, bool) else v for k, v in attrs.items()}
    inputs = given if mask is None else [*given, mask]
    check_node(
        "Attention", inputs, domain="fastinfer", expected=[want], rtol=2e-5, atol=2e-5, isas=isas, **names, **attrs
    )


@pytest.mark.parametrize("case", EDGES, ids=str)
def test_extents(case):
    *extents, causal = case
    fused(*operands(*extents), causal=causal, scale=0.3)


@pytest.mark.parametrize("sq", [1, 40])
@pytest.mark.parametrize(
    "layouts",
    [("BSNH", "BSNH", "BSNH", "BSNH"), ("BNSH", "BNHS", "BNSH", "BSNH"), ("BSNH", "BNHS", "BSNH", "BNSH"),
     ("BNSH", "BSNH", "BNSH", "BSNH")],
    ids="-".join,
)  # fmt: skip
def test_layouts(sq, layouts):
    fused(*operands(2, 4, 2, sq, 139, 24, 40), layouts=layouts, scale=0.2)


@pytest.mark.parametrize("sq", [1, 3, 70])
@pytest.mark.parametrize("shape", ["k", "1k", "b11k", "qk", "n1k", "nqk", "b1qk", "bnqk", "bnq1", "11q1"])
@pytest.mark.parametrize("kind", ["float", "bool"])
def test_masks(sq, shape, kind):
    extents = {"b": 2, "n": 6, "q": sq, "k": 150, "1": 1}
    mask = normal(*(extents[c] for c in shape)) * 2
    q, k, v = operands(2, 6, 2, sq, 150, 20)
    if kind == "bool":
        mask = mask > -1
        mask[..., :1] = True
    fused(q, k, v, mask, scale=0.5, causal=shape == "b11k")


@pytest.mark.parametrize("sq", [2, 20])
def test_rows_without_keys(sq):
    q, k, v = operands(1, 2, 2, sq, 140, 16)
    mask = np.ones((1, 1, sq, 140), bool)
    mask[0, 0, 1] = False
    fused(q, k, v, mask)
    fused(q, k, v, np.where(mask, 0, -np.inf).astype(np.float32))
    # The most negative float instead of -inf: the row becomes the mean of v.
    least = np.where(mask, 0, np.finfo(np.float32).min).astype(np.float32)
    want = attend(q, k, v, mask)[0]
    want[:, :, 1] = v.astype(np.float64).mean(2)
    fused(q, k, v, least, want=want)
    fused(*operands(1, 2, 2, sq + 4, sq, 16), causal=True)


def test_large_scores():
    q, k, v = operands(1, 2, 2, 33, 260, 64)
    fused(q * 30, k * 30, v)


@pytest.mark.parametrize("sq", [1, 2, 50])
def test_same_bits(sq):
    q, k, v = operands(7, 3, 3, sq, 140, 24)
    attrs = {"domain": "fastinfer", "batch_inputs": (0, 1, 2), "causal": int(sq > 1)}
    check_same_bits("Attention", [q, k, v], **attrs)
    mask = normal(1, 3, sq, 140)
    check_same_bits("Attention", [q, k, v, mask], **attrs)


@pytest.mark.parametrize(
    "inputs",
    [(normal(1, 3, 4, 8), normal(1, 2, 4, 8), normal(1, 2, 4, 8)), (normal(1, 2, 4, 8), normal(1, 2, 4, 7), normal(1, 2, 4, 8)),
     (normal(1, 2, 4, 8), normal(1, 2, 5, 8), normal(1, 2, 4, 8)), (normal(1, 2, 4, 8), normal(2, 2, 4, 8), normal(2, 2, 4, 8)),
     (normal(1, 2, 4, 8), normal(1, 0, 4, 8), normal(1, 0, 4, 8)), (normal(2, 4, 8), normal(2, 4, 8), normal(2, 4, 8)),
     (normal(1, 2, 4, 8), normal(1, 2, 4, 8), normal(1, 2, 4, 8), normal(3, 4))],
    ids=range(7),
)  # fmt: skip
def test_bad_shapes(inputs):
    model = build(node_model("Attention", inputs, domain="fastinfer"))
    with pytest.raises(Exception, match="under_test"):
        model.run({f"x{i}": x for i, x in enumerate(inputs)})


# ------------------------------------------------------------------------------------------- the standard operator


def onnx_attention(inputs, n_outputs=1, want=None, **attrs):
    check_node("Attention", inputs, n_outputs, expected=want, rtol=2e-5, atol=2e-5, **attrs)


@pytest.mark.parametrize("sq", [1, 30])
@pytest.mark.parametrize("causal", [0, 1])
def test_onnx_4d(sq, causal):
    q, k, v = operands(2, 4, 2, sq, 40, 16, 24)
    onnx_attention([q, k, v], is_causal=causal)
    onnx_attention([q, k, v, normal(sq, 40)], is_causal=causal, scale=0.1, softcap=2.0)
    onnx_attention([q, k, v, rng.random((2, 1, sq, 40)) > 0.3], is_causal=causal)
    onnx_attention([q, k, v, rng.random((2, 1, sq, 29)) > 0.3], is_causal=causal)


@pytest.mark.parametrize("sq", [1, 30])
@pytest.mark.parametrize("past", [None, 0, 13])
def test_onnx_3d(sq, past):
    q, k, v = normal(2, sq, 6 * 16), normal(2, 9, 2 * 16), normal(2, 9, 2 * 20)
    cache = [] if past is None else [None, normal(2, 2, past, 16), normal(2, 2, past, 20)]
    for n_outputs in (1, 3):
        onnx_attention([q, k, v, *cache], n_outputs, q_num_heads=6, kv_num_heads=2, is_causal=1)


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_onnx_scores(mode):
    q, k, v = operands(2, 4, 2, 5, 140, 16)
    mask = rng.random((5, 140)) > 0.5
    mask[2] = False
    onnx_attention([q, k, v, mask], 4, qk_matmul_output_mode=mode)
    onnx_attention([q, k, v, normal(4, 5, 140)], 4, qk_matmul_output_mode=mode, is_causal=1)
    if mode > 0:  # onnx.reference applies the softcap in mode 0, the specification does not
        onnx_attention([q, k, v, normal(5, 140)], 4, qk_matmul_output_mode=mode, softcap=1.5)


def test_onnx_raw_scores_have_no_softcap():
    q, k, v = operands(1, 2, 2, 5, 20, 16)
    want = attend(q, k, v, scale=0.5, softcap=1.5)[0].astype(np.float32)
    scores = (0.5 * q.astype(np.float64) @ k.swapaxes(-1, -2)).astype(np.float32)
    onnx_attention([q, k, v], 4, [want, k, v, scores], softcap=1.5, scale=0.5)


@pytest.mark.parametrize("sq", [2, 21])
def test_onnx_lengths(sq):
    q, k, v = operands(3, 2, 2, sq, 40, 16)
    lengths = np.array([40, 17, 1], np.int64)
    for causal in (0, 1):
        onnx_attention([q, k, v, None, None, None, lengths], is_causal=causal)
    onnx_attention([q, k, v, rng.random((3, 1, sq, 40)) > 0.3, None, None, lengths])


@pytest.mark.parametrize("left,right", [(2, 0), (3, 5), (-1, 1), (0, -1), (150, 0)])
def test_onnx_windows(left, right):
    q, k, v = operands(2, 2, 1, 40, 300, 16)
    onnx_attention([q, k, v], left_window_size=left, right_window_size=right)
    onnx_attention([q, k, v, None, normal(2, 1, 9, 16), normal(2, 1, 9, 16)], left_window_size=left,
                   right_window_size=right, is_causal=1)  # fmt: skip


def test_onnx_rows_without_keys_are_zero():
    q, k, v = operands(1, 2, 2, 20, 30, 16)
    mask = np.ones((20, 30), bool)
    mask[3] = False
    onnx_attention([q, k, v, mask])
    onnx_attention([q[:, :, 3:4], k, v, mask[3:4]])


def test_onnx_bad_lengths_do_not_crash():
    q, k, v = operands(2, 2, 2, 20, 30, 16)
    model = node_model("Attention", [q, k, v, None, None, None, np.zeros(2, np.int64)], is_causal=1)
    for bad in (-(1 << 62), 1 << 62):
        feeds = {"x0": q, "x1": k, "x2": v, "x6": np.array([bad, 5], np.int64)}
        for _, (y,) in run_everywhere(model, feeds):
            assert y.shape == q.shape


# ----------------------------------------------------------------------------------------------------- rotary


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("rotated", [0, 12])
@pytest.mark.parametrize("flat", [False, True])
def test_rotary(interleaved, rotated, flat):
    x = normal(2, 5, 3 * 40) if flat else normal(2, 3, 5, 40)
    half = (rotated or 40) // 2
    attrs = {"interleaved": interleaved, "rotary_embedding_dim": rotated, "num_heads": 3 if flat else 0}
    check_node("RotaryEmbedding", [x, normal(2, 5, half), normal(2, 5, half)], **attrs)
    positions = rng.integers(0, 9, (2, 5))
    check_node("RotaryEmbedding", [x, normal(9, half), normal(9, half), positions], **attrs)


def test_rotary_checks_positions():
    x, cache = normal(1, 2, 3, 8), normal(6, 4)
    model = build(node_model("RotaryEmbedding", [x, cache, cache, np.zeros((1, 3), np.int64)]))
    for bad in (-1, 6):
        with pytest.raises(Exception, match="under_test"):
            model.run({"x0": x, "x1": cache, "x2": cache, "x3": np.array([[0, bad, 1]])})


def test_every_instruction_set_is_there():
    assert "baseline" in ISAS
