# SPDX-License-Identifier: Apache-2.0
"""Sequences (Python lists) and optionals (a value or None), for dynamic.py. An element is a tensor on the device, or an array
on the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from fastinfer.errors import InputError

Values = list[Any]
SequenceOp = Callable[[Values, dict[str, Any]], Any]


def tensor(v: Any) -> torch.Tensor:
    """An element to compute with."""
    from fastinfer.cuda.dtypes import to_torch

    return v if isinstance(v, torch.Tensor) else to_torch(v)


def number(v: Any) -> int:
    return int(v.reshape(-1)[0])


def _place(v: Any, n: int, beyond: int = 0) -> int:
    at = number(v)
    if not -n <= at < n + beyond:
        raise InputError(f"position {at} in a sequence of {n}")
    return at + n if at < 0 else at


def _at(v: Values, _: dict) -> Any:
    return v[0][_place(v[1], len(v[0]))]


def _insert(v: Values, _: dict) -> list:
    place = _place(v[2], len(v[0]), 1) if len(v) > 2 and v[2] is not None else len(v[0])
    return [*v[0][:place], v[1], *v[0][place:]]


def _erase(v: Values, _: dict) -> list:
    place = _place(v[1], len(v[0])) if len(v) > 1 and v[1] is not None else len(v[0]) - 1
    return [*v[0][:place], *v[0][place + 1 :]]


def _split(v: Values, attributes: dict) -> list:
    x, axis = tensor(v[0]), attributes.get("axis", 0)
    if len(v) < 2 or v[1] is None:
        parts = torch.split(x, 1, axis)
        return list(parts) if attributes.get("keepdims", 1) else [p.squeeze(axis) for p in parts]
    sizes = [int(n) for n in v[1].reshape(-1)]
    return list(torch.split(x, sizes if v[1].ndim else sizes[0], axis))


def _concat(v: Values, attributes: dict) -> Any:
    xs, axis = [tensor(x) for x in v[0]], attributes["axis"]
    device = next((x.device for x in xs if x.device.type != "cpu"), xs[0].device)
    xs = [x.to(device) for x in xs]
    return torch.stack(xs, axis) if attributes.get("new_axis", 0) else torch.cat(xs, axis)


def _get(v: Values, _: dict) -> Any:
    if v[0] is None:
        raise InputError("the optional holds no element")
    return v[0]


SEQUENCES: dict[str, SequenceOp] = {
    "SequenceEmpty": lambda v, a: [],
    "SequenceConstruct": lambda v, a: list(v),
    "SequenceAt": _at,
    "SequenceInsert": _insert,
    "SequenceErase": _erase,
    "SequenceLength": lambda v, a: np.array(len(v[0]), np.int64),
    "SplitToSequence": _split,
    "ConcatFromSequence": _concat,
    "Optional": lambda v, a: v[0] if v else None,
    "OptionalHasElement": lambda v, a: np.array(bool(v) and v[0] is not None),
    "OptionalGetElement": _get,
}
