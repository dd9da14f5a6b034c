# SPDX-License-Identifier: Apache-2.0
"""MatMulNBits against float64 with dequantized weights, on every instruction set and on 1 and 2 threads."""

import numpy as np
import pytest
from support import build, check_node, check_same_bits, node_model, run_everywhere

import fastinfer as fi
from fastinfer.errors import InputError, ModelError

CONSTANTS = [1, 2, 3]


def quantize_blocks(n, k, bits, block, zeros, rng):
    """Random (B, scales, zeros, dequantized float64 [N, K]) in MatMulNBits' form; zeros: none, packed or float."""
    blocks = -(-k // block)
    q = rng.integers(0, 2**bits, (n, blocks, block))
    scales = rng.uniform(0.01, 0.1, (n, blocks)).astype(np.float32)
    if zeros == "none":
        z, packed = np.full((n, blocks), 2 ** (bits - 1)), None
    elif zeros == "float":
        z = packed = rng.uniform(0, 2**bits, (n, blocks)).astype(np.float32)
    else:
        z = rng.integers(0, 2**bits, (n, blocks))
        packed = z.astype(np.uint8)
        if bits == 4:
            even = np.pad(packed, ((0, 0), (0, blocks % 2)))
            packed = even[:, ::2] | even[:, 1::2] << 4
    b = q.astype(np.uint8)
    if bits == 4:
        b = b[:, :, ::2] | b[:, :, 1::2] << 4
    dense = ((q - z[:, :, None].astype(np.float64)) * scales[:, :, None]).reshape(n, -1)[:, :k]
    return b, scales.reshape(-1), packed, dense


def in_bytes(a, block):
    """What level 4 makes of activations (float64), and half of the distance between its numbers."""
    m, k = a.shape
    padded = np.pad(a, ((0, 0), (0, -k % block))).reshape(m, -1, block)
    most = np.abs(padded).max(-1, keepdims=True)
    inverse = np.divide(np.float32(127), most, out=np.zeros_like(most), where=most > 0)
    step = (most / np.float32(127)).astype(np.float64)
    rounded = np.rint(padded * inverse) * step
    return rounded.reshape(m, -1)[:, :k], np.broadcast_to(step / 2, padded.shape).reshape(m, -1)[:, :k]


def attributes(k, n, bits, block, level=0):
    return dict(domain="com.microsoft", K=k, N=n, bits=bits, block_size=block, accuracy_level=level,
                constants=CONSTANTS)  # fmt: skip


SHAPES = [
    (1, 64, 10, 16), (7, 100, 70, 32), (13, 257, 33, 16), (5, 300, 129, 128), (250, 32, 20, 32), (2, 20, 64, 256),
    (1, 515, 200, 64), (9, 40, 1, 32), (3, 17, 48, 16),
]  # fmt: skip


@pytest.mark.parametrize("level", [0, 4])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("zeros", ["none", "packed", "float"])
@pytest.mark.parametrize("m, k, n, block", SHAPES)
def test_against_float64(level, bits, zeros, m, k, n, block):
    """Float32 roundings alone: 2^-24 of the sum of the terms' magnitudes, once per term at most."""
    rng = np.random.default_rng(k)
    b, scales, z, dense = quantize_blocks(n, k, bits, block, zeros, rng)
    a = rng.standard_normal((m, k)).astype(np.float32)
    bias = rng.standard_normal(n).astype(np.float32) if k % 2 else None
    used, half = in_bytes(a, block) if level == 4 else (a.astype(np.float64), np.zeros((m, k)))
    added = 0 if bias is None else bias
    of_used = used @ dense.T + added
    want = of_used.astype(np.float32)
    # A block's zero point is taken off its sum: magnitudes are those of q, up to 2 ** bits.
    terms = np.abs(used) @ (np.abs(dense) + 2**bits * 0.1 * (level == 4)).T
    x = [a, b, scales, z, None, bias]
    attrs = attributes(k, n, bits, block, level)
    check_node("MatMulNBits", x, expected=[want], rtol=1e-6, atol=2**-22 * float(terms.max()) + 1e-6, **attrs)
    check_node("MatMulNBits", [a[:, None], *x[1:]], expected=[want[:, None]], rtol=1e-4, atol=1e-3, **attrs)
    # And level 4 is as near to the exact product as half a step per activation allows.
    exact = a.astype(np.float64) @ dense.T + added
    assert (np.abs(of_used - exact) <= half @ np.abs(dense).T * (1 + 1e-5) + 1e-9).all()
    if m in (7, 13):
        check_same_bits("MatMulNBits", x, **attrs)


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_other_levels_are_float32(level):
    rng = np.random.default_rng(1)
    b, scales, z, _ = quantize_blocks(48, 96, 4, 32, "packed", rng)
    a = rng.standard_normal((3, 96)).astype(np.float32)
    feeds = {"x0": a}
    plain, other = (
        dict(run_everywhere(node_model("MatMulNBits", [a, b, scales, z], **attributes(96, 48, 4, 32, i)), feeds))
        for i in (0, level)
    )
    for label, (y,) in plain.items():
        np.testing.assert_array_equal(y, other[label][0], err_msg=label)


@pytest.mark.parametrize("level", [0, 4])
def test_levels_differ_in_what_they_cost(level):
    """Level 4 rounds activations to bytes of a block: about 0.3 % of the result's deviation; the others do not."""
    rng = np.random.default_rng(2)
    m, k, n, block = 4, 2048, 160, 32
    b, scales, z, dense = quantize_blocks(n, k, 4, block, "packed", rng)
    a = rng.standard_normal((m, k)).astype(np.float32)
    exact = a.astype(np.float64) @ dense.T
    for label, (y,) in run_everywhere(node_model("MatMulNBits", [a, b, scales, z], **attributes(k, n, 4, block, level)),
                                      {"x0": a}):  # fmt: skip
        error = np.sqrt(np.mean((y - exact) ** 2) / np.mean(exact**2))
        assert error < (1e-2 if level == 4 else 1e-6), f"{label}: {error}"
        assert error > (1e-3 if level == 4 else 0), f"{label}: {error}"


@pytest.mark.parametrize("level", [0, 4])
@pytest.mark.parametrize("bits", [4, 8])
def test_same_bits_for_few_and_many_rows(level, bits):
    """The forms for 1, 2, 4, 6 and many rows, over several chunks of k."""
    rng = np.random.default_rng(3)
    k, n, block = 531, 200, 64
    b, scales, z, _ = quantize_blocks(n, k, bits, block, "float", rng)
    a = rng.standard_normal((31, k)).astype(np.float32)
    model = node_model("MatMulNBits", [a, b, scales, z], **attributes(k, n, bits, block, level))
    whole = dict(run_everywhere(model, {"x0": a}))
    for rows in (1, 2, 3, 5, 8, 9, 14):
        for label, (y,) in run_everywhere(model, {"x0": a[:rows]}):
            np.testing.assert_array_equal(y, whole[label][0][:rows], err_msg=f"{rows} rows, {label}")
    by_threads = [[y for label, (y,) in whole.items() if label.split()[0] == i] for i in {x.split()[0] for x in whole}]
    for same in by_threads:
        for y in same[1:]:
            np.testing.assert_array_equal(y, same[0])


@pytest.mark.parametrize("bits", [4, 8])
def test_extremes_do_not_saturate(bits):
    """The largest weights, zero points and activations: sums in 16 bits would be at their limit."""
    m, k, n, block = 3, 512, 40, 256
    q = 2**bits - 1
    b = np.full((n, k // block, block * bits // 8), 255, np.uint8)
    scales = np.ones(n * (k // block), np.float32)
    a = np.full((m, k), -1, np.float32)
    a[1] = 1
    for z, zero in [(np.zeros((n, k // block * bits // 8), np.uint8), 0), (None, 2 ** (bits - 1))]:
        want = np.float32(q - zero) * a.sum(1, keepdims=True) * np.ones((1, n), np.float32)
        check_node("MatMulNBits", [a, b, scales, z], expected=[want], rtol=1e-6, **attributes(k, n, bits, block, 4))


def test_strange_activations():
    rng = np.random.default_rng(4)
    b, scales, _, dense = quantize_blocks(24, 64, 4, 32, "none", rng)
    a = rng.standard_normal((5, 64)).astype(np.float32)
    a[0] = 0
    a[1, 40] = np.nan
    a[2] *= np.float32(1e-38)
    a[3] *= np.float32(1e25)
    for level in (0, 4):
        for label, (y,) in run_everywhere(node_model("MatMulNBits", [a, b, scales], **attributes(64, 24, 4, 32, level)),
                                          {"x0": a}):  # fmt: skip
            assert (y[0] == 0).all() and np.isnan(y[1]).all() and (np.abs(y[2]) < 1e-30).all(), label
            exact = a[3:].astype(np.float64) @ dense.T
            bound = np.abs(a[3:]).max(1, keepdims=True) * np.abs(dense).sum(1) / 127
            assert (np.abs(y[3:] - exact) <= bound).all(), label


def test_long_blocks_stay_float32():
    """Sums of blocks beyond 256 would not fit a float's 24 bits."""
    rng = np.random.default_rng(5)
    b, scales, z, dense = quantize_blocks(20, 1024, 8, 512, "packed", rng)
    a = rng.standard_normal((2, 1024)).astype(np.float32)
    want = (a.astype(np.float64) @ dense.T).astype(np.float32)
    check_node("MatMulNBits", [a, b, scales, z], expected=[want], rtol=1e-5, atol=1e-2,
               **attributes(1024, 20, 8, 512, 4))  # fmt: skip


@pytest.mark.parametrize("level", [0, 4])
def test_no_rows(level):
    rng = np.random.default_rng(6)
    b, scales, z, _ = quantize_blocks(20, 64, 4, 32, "packed", rng)
    x = [np.zeros((0, 64), np.float32), b, scales, z]
    check_node("MatMulNBits", x, expected=[np.zeros((0, 20), np.float32)], **attributes(64, 20, 4, 32, level))


def test_groups_are_refused():
    """Rows of B in another order of k (g_idx)."""
    rng = np.random.default_rng(7)
    b, scales, z, _ = quantize_blocks(20, 64, 4, 32, "packed", rng)
    x = [np.zeros((2, 64), np.float32), b, scales, z, np.zeros(64, np.int32)]
    attrs = {**attributes(64, 20, 4, 32), "constants": [1, 2, 3, 4]}
    with pytest.raises(ModelError, match="g_idx"):
        fi.compile(node_model("MatMulNBits", x, **attrs), strict=True)


def test_wrong_sizes():
    rng = np.random.default_rng(0)
    b, scales, z, _ = quantize_blocks(20, 64, 4, 32, "packed", rng)
    a = np.zeros((2, 64), np.float32)
    attrs = attributes(64, 20, 4, 32)
    for x, changed in [
        ([a, b[:-1], scales, z], {}), ([a, b, scales[:-1], z], {}), ([a, b, scales, z[:-1]], {}),
        ([a, b, scales, z], {"K": 0}), ([a, b, scales, z], {"block_size": 24}), ([a, b, scales, z], {"N": -1}),
        ([a, b, scales, z], {"block_size": 0}),
    ]:  # fmt: skip
        with pytest.raises(ModelError, match="needed"):
            build(node_model("MatMulNBits", x, **{**attrs, **changed}))
    with pytest.raises(InputError, match="columns"):
        build(node_model("MatMulNBits", [a, b, scales, z], **attrs)).run({"x0": np.zeros((2, 63), np.float32)})
