# SPDX-License-Identifier: Apache-2.0
"""Example inputs against dynamic_shapes: an axis that shall be dynamic must not have extent 1 in the example."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

WIDENED = 2


def widen_examples(args: tuple, kwargs: dict[str, Any], dynamic_shapes: Any) -> tuple[tuple, dict[str, Any]]:
    """Repeats every dynamic axis of extent 1 to WIDENED (torch specialises extents of 0 and 1)."""
    if not dynamic_shapes:
        return args, kwargs
    if isinstance(dynamic_shapes, Mapping) and not kwargs:
        specs: list[Any] = list(dynamic_shapes.values())
        return tuple(_widen(a, s) for a, s in zip(args, specs, strict=False)) + args[len(specs) :], kwargs
    if isinstance(dynamic_shapes, Mapping):
        names = list(dynamic_shapes)
        positional = tuple(_widen(a, dynamic_shapes[n]) for a, n in zip(args, names, strict=False))
        return positional, {k: _widen(v, dynamic_shapes.get(k)) for k, v in kwargs.items()}
    specs = list(dynamic_shapes)
    positional = tuple(_widen(a, s) for a, s in zip(args, specs, strict=False))
    named = dict(zip(kwargs, specs[len(args) :], strict=False))
    return positional, {k: _widen(v, named.get(k)) for k, v in kwargs.items()}


def _widen(example: Any, spec: Any) -> Any:
    if spec is None:
        return example
    if isinstance(example, torch.Tensor):
        for axis in _dynamic_axes(spec):
            if -example.ndim <= axis < example.ndim and example.shape[axis] == 1:
                example = example.repeat_interleave(WIDENED, dim=axis)
        return example
    if isinstance(example, Mapping) and isinstance(spec, Mapping):
        return type(example)({k: _widen(v, spec.get(k)) for k, v in example.items()})  # type: ignore[call-arg]
    if isinstance(example, (list, tuple)) and isinstance(spec, (list, tuple)) and type(example) in (list, tuple):
        return type(example)(_widen(v, s) for v, s in zip(example, spec, strict=True))
    return example


def _dynamic_axes(spec: Any) -> Iterator[int]:
    items = spec.items() if isinstance(spec, Mapping) else enumerate(spec) if isinstance(spec, Sequence) else ()
    for axis, dim in items:
        if isinstance(axis, int) and _is_dynamic(dim):
            yield axis


def _is_dynamic(dim: Any) -> bool:
    return dim is not None and not isinstance(dim, int) and dim is not torch.export.Dim.STATIC


def count_dynamic(spec: Any) -> int:
    """How many axes a dynamic_shapes tree asks to be free (Dim.AUTO leaves the choice to torch)."""
    if isinstance(spec, Mapping):
        return sum(count_dynamic(s) for s in spec.values())
    if isinstance(spec, (list, tuple)):
        return sum(count_dynamic(s) for s in spec)
    return int(_is_dynamic(spec) and spec is not torch.export.Dim.AUTO)
