# SPDX-License-Identifier: Apache-2.0
"""If, Loop and Scan over the bodies of dynamic.py. A node's inputs: its own, then what each body captures, in the order of
the bodies' names (lower.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fastinfer.cuda.dtypes import to_torch
from fastinfer.errors import InputError

if TYPE_CHECKING:
    from fastinfer.cuda.dynamic import Body

Outputs = list[Any]


def _own(body: Body, i: int, given: list[Any]) -> tuple[list[Any], dict[str, list[Any]]]:
    """The node's own inputs, and by name of a graph attribute what that graph captures."""
    attributes, node = body.attributes[i], body.graph.nodes[i]
    at = attributes["own_inputs"]
    captured = {}
    for name, (kind, _) in sorted(node["attrs"].items()):
        if kind == "graph":
            count = attributes[f"{name}_captures"]
            captured[name] = given[at : at + count]
            at += count
    return given[: attributes["own_inputs"]], captured


def _true(v: Any) -> bool:
    if v.size != 1 if isinstance(v, np.ndarray) else v.numel() != 1:
        raise InputError("a condition has more than one element")
    return bool(v.reshape(()))


def run_if(body: Body, i: int, given: list[Any]) -> Outputs:
    own, captured = _own(body, i, given)
    name = "then_branch" if _true(own[0]) else "else_branch"
    return body.body(body.attributes[i][name], i).run(captured[name])


def run_loop(body: Body, i: int, given: list[Any]) -> Outputs:
    """Iterations: at most `own[0]`, while `own[1]`; a condition on the device is read back after each."""
    own, captured = _own(body, i, given)
    inner = body.body(body.attributes[i]["body"], i)
    most = None if own[0] is None else int(own[0].reshape(-1)[0])
    condition = np.array(True) if len(own) < 2 or own[1] is None else own[1]
    state = list(own[2:])
    rows: list[list[Any]] = [[] for _ in inner.graph.outputs[1 + len(state) :]]
    step = 0
    while (most is None or step < most) and _true(condition):
        made = inner.run([np.array(step, np.int64), condition, *state, *captured["body"]])
        condition, state = made[0], made[1 : 1 + len(state)]
        for row, value in zip(rows, made[1 + len(state) :], strict=True):
            row.append(value)
        step += 1
    ports = inner.graph.outputs[1 + len(state) :]
    return [*state, *(_stacked(body, row, 0, port) for row, port in zip(rows, ports, strict=True))]


def run_scan(body: Body, i: int, given: list[Any]) -> Outputs:
    own, captured = _own(body, i, given)
    attributes = body.attributes[i]
    inner, n = body.body(attributes["body"], i), attributes["num_scan_inputs"]
    state, scanned = own[: len(own) - n], [_tensor(v) for v in own[len(own) - n :]]
    n_rows = len(inner.graph.outputs) - len(state)
    axes, back = attributes.get("scan_input_axes") or [0] * n, attributes.get("scan_input_directions") or [0] * n
    length = scanned[0].shape[axes[0]]
    rows: list[list[Any]] = [[] for _ in range(n_rows)]
    for t in range(length):
        at = [length - 1 - t if b else t for b in back]
        slices = [body.owner.placed(x.select(a, k)) for x, a, k in zip(scanned, axes, at)]
        made = inner.run([*state, *slices, *captured["body"]])
        state = made[: len(state)]
        for row, value in zip(rows, made[len(state) :], strict=True):
            row.append(value)
    out_axes = attributes.get("scan_output_axes") or [0] * n_rows
    reverse = attributes.get("scan_output_directions") or [0] * n_rows
    ports = inner.graph.outputs[len(state) :]
    rows = [row[::-1] if r else row for row, r in zip(rows, reverse)]
    return [*state, *(_stacked(body, row, axis, port) for row, axis, port in zip(rows, out_axes, ports))]


def _tensor(v: Any) -> torch.Tensor:
    return v if isinstance(v, torch.Tensor) else to_torch(v)


def _stacked(body: Body, row: list[Any], axis: int, port: dict[str, Any]) -> Any:
    """The results of all steps along a new axis; of no steps: nothing, of the extents that the body declares."""
    if not row:
        from fastinfer.cuda.dtypes import dtype_of_code

        dims = [d if isinstance(d, int) else 0 for d in port["dims"] or ()]
        dims.insert(axis if axis >= 0 else axis + len(dims) + 1, 0)
        dtype = dtype_of_code(port["dtype"]) if port["dtype"] else torch.float32
        return body.owner.placed(torch.zeros(dims, dtype=dtype))
    if all(isinstance(v, np.ndarray) for v in row):
        stacked = np.stack(row, axis)
        return body.owner.placed(stacked) if stacked.dtype != object else stacked
    return torch.stack([_tensor(v).to(body.owner.device) for v in row], axis)


CONTROL: dict[str, Callable[[Body, int, list[Any]], Outputs]] = {"If": run_if, "Loop": run_loop, "Scan": run_scan}
