# SPDX-License-Identifier: Apache-2.0
"""com.microsoft's attention operators against ONNX Runtime."""

import numpy as np
import pytest
from support import build, check_node, check_same_bits, node_model

ort = pytest.importorskip("onnxruntime", reason="the com.microsoft operators have no other reference")

rng = np.random.default_rng(11)


def normal(*shape):
    return rng.standard_normal(shape, dtype=np.float32)


def runtime(op, inputs, n_outputs, attrs):
    model = node_model(op, inputs, n_outputs, domain="com.microsoft", opset=21, **attrs)
    model.ir_version = 10
    for output in model.graph.output:
        output.type.tensor_type.elem_type = 1
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {f"x{i}": x for i, x in enumerate(inputs) if x is not None})


def check(op, inputs, n_outputs=1, *, constants=(), tolerance=2e-5, **attrs):
    want = runtime(op, inputs, n_outputs, attrs)
    check_node(op, inputs, n_outputs, domain="com.microsoft", expected=want, constants=constants, rtol=tolerance,
               atol=tolerance, **attrs)  # fmt: skip


# ------------------------------------------------------------------------------------------------------ Attention


def projection(sequence=20, depth=24, hidden=32, v_hidden=None):
    width = 2 * hidden + (v_hidden or hidden)
    return normal(2, sequence, depth), normal(depth, width) / 5, normal(width)


MASKS = {
    "none": lambda b, s, t: None,
    "ends": lambda b, s, t: np.array([t, t - 3]),
    "ends_and_starts": lambda b, s, t: np.array([t, t - 1, 0, 3]),
    "keys": lambda b, s, t: (rng.random((b, t)) > 0.3).astype(int) | (np.arange(t) == 0),
    "queries": lambda b, s, t: (rng.random((b, s, t)) > 0.3).astype(int),
    "nothing_seen": lambda b, s, t: np.stack([np.ones(t), np.zeros(t)]),
}


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("mask", MASKS)
def test_attention_masks(mask, causal):
    m = MASKS[mask](2, 20, 20)
    inputs = [*projection(), m if m is None else m.astype(np.int32)]
    check("Attention", inputs, num_heads=4, unidirectional=causal, constants=(1, 2))


@pytest.mark.parametrize("sequence", [1, 20])
@pytest.mark.parametrize("past", [0, 1, 9])
def test_attention_past(sequence, past):
    total = sequence + past
    inputs = [*projection(sequence), None, normal(2, 2, 4, past, 8)]
    check("Attention", inputs, 2, num_heads=4, unidirectional=1, constants=(1, 2))
    keys = MASKS["keys"](2, sequence, total).astype(np.int32)
    check("Attention", [*projection(sequence), keys, normal(2, 2, 4, past, 8)], 2, num_heads=4)


def test_attention_without_past_gives_present():
    check("Attention", [*projection()], 2, num_heads=4)


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("mask", ["none", "ends", "queries"])
def test_attention_bias(mask, heads):
    m = MASKS[mask](2, 20, 20)
    inputs = [*projection(), m if m is None else m.astype(np.int32), None, normal(1, heads, 20, 20)]
    check("Attention", inputs, num_heads=4)


def test_attention_other_value_size_and_scale():
    check("Attention", [*projection(20, 24, 32, 16)], num_heads=4, qkv_hidden_sizes=[32, 32, 16], scale=0.3)


@pytest.mark.parametrize("sequence", [1, 20])
def test_attention_same_bits(sequence):
    x, w, b = projection(sequence)
    mask = np.array([[1] * sequence, [1] * (sequence - 1) + [0]], np.int32)
    check_same_bits(
        "Attention", [x, w, b, mask], batch_inputs=(0, 3), domain="com.microsoft", num_heads=4, constants=(1, 2)
    )


@pytest.mark.parametrize(
    "change", [{0: normal(2, 20, 23)}, {1: normal(24, 95)}, {2: normal(95)}, {3: np.ones((2, 19), np.int32)},
               {4: normal(2, 2, 4, 5, 7)}, {4: normal(2, 4)}],
    ids=range(6),
)  # fmt: skip
def test_attention_bad_shapes(change):
    inputs = [*projection(), None, None]
    for i, x in change.items():
        inputs[i] = x
    model = build(node_model("Attention", inputs, domain="com.microsoft", num_heads=4))
    with pytest.raises(Exception, match="under_test"):
        model.run({f"x{i}": x for i, x in enumerate(inputs) if x is not None})


# --------------------------------------------------------------------------------------------- MultiHeadAttention


@pytest.mark.parametrize("sq,sk", [(1, 20), (20, 20), (70, 150)])
@pytest.mark.parametrize("bias", [False, True])
def test_multi_head(sq, sk, bias):
    inputs = [normal(2, sq, 32), normal(2, sk, 32), normal(2, sk, 24), normal(88) if bias else None]
    check("MultiHeadAttention", inputs, num_heads=4)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("mask", [m for m in MASKS if m != "ends_and_starts"])
def test_multi_head_masks(mask, bias):
    m = MASKS[mask](2, 20, 30)
    inputs = [normal(2, 20, 32), normal(2, 30, 32), normal(2, 30, 32), None, m if m is None else m.astype(np.int32)]
    # Where all keys stand at -10000, one ulp of the scores is 1e-3 and the order of the two additions shows.
    tolerance = 2e-3 if bias and mask == "nothing_seen" else 2e-5
    check("MultiHeadAttention", inputs + ([normal(2, 4, 20, 30)] if bias else []), num_heads=4, tolerance=tolerance)


@pytest.mark.parametrize("past", [1, 9])
@pytest.mark.parametrize("causal", [0, 1])
def test_multi_head_past(past, causal):
    inputs = [normal(2, 5, 32), normal(2, 5, 32), normal(2, 5, 32), normal(96), None, None, normal(2, 4, past, 8),
              normal(2, 4, past, 8)]  # fmt: skip
    check("MultiHeadAttention", inputs, 3, num_heads=4, unidirectional=causal)


def test_multi_head_present_without_past():
    check("MultiHeadAttention", [normal(2, 5, 32), normal(2, 5, 32), normal(2, 5, 32)], 3, num_heads=4)


def test_multi_head_kept_keys():
    inputs = [normal(2, 5, 32), normal(2, 4, 9, 8), normal(2, 4, 9, 8)]
    check("MultiHeadAttention", inputs, num_heads=4)
    check("MultiHeadAttention", [*inputs, normal(96)], num_heads=4)


def test_multi_head_scores():
    inputs = [normal(2, 5, 32), normal(2, 9, 32), normal(2, 9, 32), None, None, normal(1, 1, 5, 9)]
    check("MultiHeadAttention", inputs, 4, num_heads=4)


@pytest.mark.parametrize("bias", [False, True])
def test_multi_head_packed_is_the_same(bias):
    """ONNX Runtime's CPU kernel refuses the packed forms: ours must equal the plain one."""
    q, k, v = normal(2, 9, 4, 8), normal(2, 9, 4, 8), normal(2, 9, 4, 8)
    b = [normal(96)] if bias else []
    (want,) = runtime("MultiHeadAttention", [x.reshape(2, 9, 32) for x in (q, k, v)] + b, 1, {"num_heads": 4})
    packed = np.stack([q, k, v], axis=3)
    given = {"domain": "com.microsoft", "expected": [want], "num_heads": 4, "rtol": 2e-5, "atol": 2e-5}
    check_node("MultiHeadAttention", [packed, None, None, *b], **given)
    check_node("MultiHeadAttention", [q.reshape(2, 9, 32), np.stack([k, v], axis=3), None, *b], **given)


# ------------------------------------------------------------------------------------------------------- rotary


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("first", [False, True])
def test_rotary(interleaved, first):
    positions = np.array([3]) if first else rng.integers(0, 20, (2, 5))
    cache = [normal(20, 8), normal(20, 8)]
    check("RotaryEmbedding", [normal(2, 5, 48), positions, *cache], interleaved=interleaved)
    check("RotaryEmbedding", [normal(2, 3, 5, 16), positions, *cache], interleaved=interleaved)
    check("RotaryEmbedding", [normal(2, 5, 72), positions, *cache], interleaved=interleaved, num_heads=3,
          rotary_embedding_dim=16)  # fmt: skip
