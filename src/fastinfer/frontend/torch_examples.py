# SPDX-License-Identifier: Apache-2.0
"""Example inputs against dynamic_shapes: an axis that shall be dynamic must not have extent 1 in the example."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from fastinfer.errors import InputError

WIDENED = 2


def check_examples(args: tuple, kwargs: dict[str, Any], dynamic_shapes: Any) -> None:
    """Raises InputError for what torch.export would answer with pages."""
    for path, leaf in pytree.tree_flatten_with_path((args, kwargs))[0]:
        if not isinstance(leaf, torch.Tensor) and hasattr(leaf, "__array__"):
            where = pytree.keystr(path[1:])
            raise InputError(
                f"example_inputs{where} is a {type(leaf).__module__}.{type(leaf).__name__}; torch modules need torch tensors "
                "(torch.from_numpy)"
            )
    if dynamic_shapes is not None and not isinstance(dynamic_shapes, (Mapping, list, tuple)):
        raise InputError(
            f"dynamic_shapes={dynamic_shapes!r}; needed, as for torch.export.export: a tuple or a dict with one entry per "
            'argument, such as ({0: torch.export.Dim("batch")},)'
        )


def separate_examples(module: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """Copies tensors that are given twice or are the module's own: torch.export takes one object for one input, or for a
    constant."""
    seen = {id(t) for t in [*module.parameters(), *module.buffers()]}

    def own(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        if id(leaf) in seen:
            leaf = leaf.detach().clone()
        seen.add(id(leaf))
        return leaf

    with torch.no_grad():
        return pytree.tree_map(own, (args, kwargs))


def ranges_of(program: ExportedProgram, dynamic_shapes: Any) -> dict[str, tuple[int, int | None]]:
    """Name of a free extent → (least, greatest or None): what each Dim states, or, of a program that was exported
    elsewhere, what torch kept. torch's own lower bound of 2 only says that the example was no 0 or 1."""
    if dynamic_shapes:
        # Dim.DYNAMIC and Dim.AUTO have bounds too, but no name: torch names those axes.
        dims = [d for d in _dims(dynamic_shapes) if all(hasattr(d, a) for a in ("min", "max", "__name__"))]
        found = {d.__name__: (int(d.min), _finite(d.max)) for d in dims}
    else:
        kept = program.range_constraints.items()
        found = {str(name): (int(r.lower) if r.lower > 2 else 0, _finite(r.upper)) for name, r in kept}
    return {name: r for name, r in found.items() if r != (0, None)}


def _finite(bound: Any) -> int | None:
    """None for torch's spellings of infinity."""
    try:
        return None if int(bound) >= 2**62 else int(bound)
    except (ArithmeticError, AttributeError, TypeError, ValueError):
        return None


def _dims(spec: Any) -> Iterator[Any]:
    if isinstance(spec, Mapping):
        spec = list(spec.values())
    if isinstance(spec, (list, tuple)):
        for part in spec:
            yield from _dims(part)
    elif _is_dynamic(spec):
        yield spec


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
