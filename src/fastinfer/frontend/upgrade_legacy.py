# SPDX-License-Identifier: Apache-2.0
"""Upgrade rules from opset 6 to 7: numpy broadcasting came, test-mode switches went."""

from __future__ import annotations

from fastinfer.frontend.edit import Edit, known_rank


def broadcast_axis(edit: Edit) -> None:
    """Add-6 and its like: B's axes are A's from attribute `axis` on; without it, numpy's rule says the same."""
    axis, broadcast = edit.take("axis"), edit.take("broadcast", 0)
    if not broadcast or axis is None:
        return
    a, b = edit.node.inputs[0], edit.node.inputs[1]
    rank_a, rank_b = known_rank(a), known_rank(b)
    if rank_a is None or rank_b is None:
        raise edit.unsupported(f"broadcasting from axis {axis} on, with an input of unknown rank")
    missing = rank_a - axis % max(rank_a, 1) - rank_b
    if missing > 0:
        edit.set_input(1, edit.op("Unsqueeze", [b, edit.constant(range(rank_b, rank_b + missing))]))


def drop_test_mode(edit: Edit) -> None:
    """BatchNormalization-6, Dropout-6: is_test. Inference is what we do anyway."""
    edit.take("is_test")


def drop_broadcast(edit: Edit) -> None:
    """Gemm-6: C's broadcasting became implicit."""
    edit.take("broadcast")


def drop_output_sequence(edit: Edit) -> None:
    """RNN-1, GRU-3, LSTM-1: whether Y is made is said by its presence."""
    edit.take("output_sequence")


def prelu_slope(edit: Edit) -> None:
    """PRelu-6: a slope of one axis belongs to the channels."""
    x, slope = edit.node.inputs[0], edit.node.inputs[1]
    rank = known_rank(x)
    if known_rank(slope) != 1 or slope.shape[0] == 1:  # type: ignore[index, union-attr]
        return
    if rank is None:
        raise edit.unsupported("a slope per channel for an input of unknown rank")
    if rank > 2:
        edit.set_input(1, edit.op("Unsqueeze", [slope, edit.constant(range(1, rank - 1))]))


def upsample_height_width(edit: Edit) -> None:
    """Upsample-1: two attributes for the last two of four axes → scales."""
    edit.set("scales", [1.0, 1.0, edit.take("height_scale"), edit.take("width_scale")])
    if edit.get("mode") == "bilinear":
        edit.set("mode", "linear")
