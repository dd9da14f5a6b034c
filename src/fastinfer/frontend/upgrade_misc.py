# SPDX-License-Identifier: Apache-2.0
"""Upgrade rules of Clip, DFT, Scan, Scatter and TopK."""

from __future__ import annotations

import onnx_ir as ir

from fastinfer.frontend.check_graph import MAX_OPSET
from fastinfer.frontend.edit import Edit


def clip_bounds(edit: Edit) -> None:
    """Clip-6: attributes min and max → inputs 1 and 2."""
    for i, name in enumerate(("min", "max"), start=1):
        bound = edit.take(name)
        if bound is not None:
            edit.set_input(i, edit.constant_like(bound, edit.node.inputs[0]))


def dft_axis(edit: Edit) -> None:
    """DFT-17: attribute axis (default 1) → input 2 (default -2)."""
    edit.set_input(2, edit.constant(edit.take("axis", 1)))


def scatter_rename(edit: Edit) -> None:
    """Scatter-9 is ScatterElements without a reduction."""
    edit.node.op_type = "ScatterElements"


def topk_input(edit: Edit) -> None:
    """TopK-1: attribute k → input 1."""
    edit.set_input(1, edit.constant([edit.take("k")]))


def scan_batch(edit: Edit) -> None:
    """Scan-8 works on a batch: → a Scan over axis 0 (the batch) whose body is the scan over the sequence."""
    node, n_scans = edit.node, edit.get("num_scan_inputs")
    lengths, values = node.inputs[0], node.inputs[1:]
    body = edit.take("body")
    directions = edit.take("directions")
    attributes = {"body": body, "num_scan_inputs": n_scans}
    if directions:
        attributes["scan_input_directions"] = directions
    n_states = len(values) - n_scans

    rows = [_row(value, i) for i, value in enumerate(values)]
    inputs, prefix, outputs_of = list(rows), [], _identity_outputs
    if lengths is not None:
        length = ir.Value(name="length", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([]))
        inputs.append(length)
        rows, prefix, outputs_of = _cut_to_length(rows, n_states, length)
        values = [*values, lengths]
    inner = ir.node("Scan", rows, attributes, num_outputs=len(node.outputs), version=MAX_OPSET)
    outputs, suffix = outputs_of(inner, n_states)
    outer = ir.Graph(inputs, outputs, nodes=[*prefix, inner, *suffix], name="scan_over_batch")
    for i, value in enumerate(outputs):
        value.name = value.name or f"out{i}"
    new = edit.op("Scan", values, {"body": outer, "num_scan_inputs": len(values)}, n_outputs=len(node.outputs))
    edit.replace(*(new if isinstance(new, tuple) else (new,)))


def _row(value: ir.Value | None, i: int) -> ir.Value:
    assert value is not None
    shape = None if value.shape is None else ir.Shape(value.shape[1:])
    return ir.Value(name=f"row{i}", type=value.type, shape=shape)


def _identity_outputs(inner: ir.Node, n_states: int) -> tuple[list[ir.Value], list[ir.Node]]:
    return list(inner.outputs), []


def _cut_to_length(rows, n_states, length):
    """Scans read the first `length` steps; what they write is filled up with zeros to the full extent."""
    nodes: list[ir.Node] = []

    def op(kind, inputs, attributes=None):
        nodes.append(ir.node(kind, inputs, attributes, version=MAX_OPSET))
        return nodes[-1].outputs[0]

    def ints(values):
        return op("Constant", [], {"value_ints": values})

    zero = ints([0])
    end = op("Unsqueeze", [length, zero])
    full = op("Shape", [rows[n_states]], {"start": 0, "end": 1})
    missing = op("Sub", [full, end])
    cut = rows[:n_states] + [op("Slice", [row, zero, end, zero]) for row in rows[n_states:]]
    pads = op("Concat", [zero, missing], {"axis": 0})

    def outputs_of(inner: ir.Node, n_states: int) -> tuple[list[ir.Value], list[ir.Node]]:
        padded = [ir.node("Pad", [out, pads, None, zero], version=MAX_OPSET) for out in inner.outputs[n_states:]]
        return [*inner.outputs[:n_states], *(node.outputs[0] for node in padded)], padded

    return cut, nodes, outputs_of
