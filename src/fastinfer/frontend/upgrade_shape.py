# SPDX-License-Identifier: Apache-2.0
"""Upgrade rules of the operators that move data: attributes that became inputs."""

from __future__ import annotations

from fastinfer.frontend.edit import Edit


def axes_to_input(edit: Edit) -> None:
    """Squeeze, Unsqueeze, Reduce*: attribute axes → input 1. Absent or empty: all axes, as before."""
    axes = edit.take("axes")
    if axes:
        edit.set_input(1, edit.constant(axes))


def pad_inputs(edit: Edit) -> None:
    """Pad-2: attributes pads and value → inputs 1 and 2."""
    edit.set_input(1, edit.constant(edit.take("pads")))
    value = edit.take("value", 0.0)
    if value:
        edit.set_input(2, edit.constant_like(value, edit.node.inputs[0]))


def slice_inputs(edit: Edit) -> None:
    """Slice-1: attributes starts, ends, axes → inputs 1, 2, 3."""
    for i, name in enumerate(("starts", "ends", "axes"), start=1):
        value = edit.take(name)
        if value is not None:
            edit.set_input(i, edit.constant(value))


def split_input(edit: Edit) -> None:
    """Split-2, -11: attribute split → input 1."""
    split = edit.take("split")
    if split is not None:
        edit.set_input(1, edit.constant(split))


def split_num_outputs(edit: Edit) -> None:
    """Split-13 without sizes splits equally into as many parts as it has outputs: from 18 on that is said."""
    if not edit.has(1):
        edit.set("num_outputs", len(edit.node.outputs))
