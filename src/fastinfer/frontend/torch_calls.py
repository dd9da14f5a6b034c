# SPDX-License-Identifier: Apache-2.0
"""ExportedProgram → fastinfer.call.Call, and what a capture must not lose silently: state that the module changes."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import (
    ConstantArgument,
    InputKind,
    OutputKind,
    SymBoolArgument,
    SymFloatArgument,
    SymIntArgument,
)
from torch.utils import _pytree as pytree

from fastinfer.call import Call, Tree, output_of
from fastinfer.errors import UnsupportedError

_MUTATIONS = {
    OutputKind.BUFFER_MUTATION: "buffer",
    OutputKind.PARAMETER_MUTATION: "parameter",
    OutputKind.USER_INPUT_MUTATION: "input",
}
_NUMBERS = {SymIntArgument: "int", SymFloatArgument: "float", SymBoolArgument: "bool"}


class ChangesState(UnsupportedError):
    """No other way of exporting would help."""


class _Part:
    """Stands for what a container holds while its structure is looked at."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree


def refuse_mutations(program: ExportedProgram, name: str) -> None:
    """A compiled model has no state: what the module writes into buffers or inputs would be lost. `program` is in the
    functional form, where each such write is an output."""
    written = [
        f"{_MUTATIONS[spec.kind]} '{spec.target}'"
        for spec in program.graph_signature.output_specs
        if spec.kind in _MUTATIONS
    ]
    if written:
        raise ChangesState(
            f"{name} writes to {', '.join(written)} in place; a compiled model keeps no state between calls and does not "
            "change its inputs: return the new value as an output instead (for an input: work on a clone)"
        )


def call_of(program: ExportedProgram, signature: inspect.Signature | None) -> Call:
    """How `program` is called. signature: of the module's forward, for the arguments that the examples left out."""
    spec = program.call_spec.in_spec
    assert spec is not None
    flat, count = [], 0
    for given in program.graph_signature.input_specs:
        if given.kind != InputKind.USER_INPUT:
            continue
        if isinstance(given.arg, ConstantArgument):
            flat.append(_fixed(given.arg.value))
            continue
        flat.append({"leaf": count, **_complex(program, given.arg)})
        count += 1
    leaves = iter(flat)
    args, kwargs = (part for part in spec.children())
    positional = [_tree_of(part, leaves) for part in args.children()]
    named = [_tree_of(part, leaves) for part in kwargs.children()]
    found = dict(zip(_argument_names(program, len(positional)), positional))
    found.update(zip(map(str, kwargs.context or ()), named))
    result, unflatten = _result(program)
    return Call(_in_order(found, signature), count, result, unflatten)


def _argument_names(program: ExportedProgram, n: int) -> list[str]:
    signature = program.module_call_graph[0].signature
    names = list(getattr(signature, "forward_arg_names", None) or [])[:n]
    return names + [f"argument {i}" for i in range(len(names), n)]


def _in_order(found: dict[str, Tree], signature: inspect.Signature | None) -> list[tuple[str, Tree]]:
    """In the order of the signature; parameters that the examples left out are fixed to their defaults. A signature with
    *args leaves the order of the examples."""
    parameters = [] if signature is None else list(signature.parameters.values())
    if any(p.kind == p.VAR_POSITIONAL for p in parameters):
        return list(found.items())
    ordered = {}
    for p in parameters:
        if p.name in found:
            ordered[p.name] = found[p.name]
        elif p.kind != p.VAR_KEYWORD and p.default is not p.empty and _plain(p.default):
            ordered[p.name] = {"value": p.default}
    return list({**ordered, **found}.items())


def _result(program: ExportedProgram) -> tuple[Tree, Callable[[Sequence[Any]], Any] | None]:
    specs = [s for s in program.graph_signature.output_specs if s.kind == OutputKind.USER_OUTPUT]
    flat, count = [], 0
    for spec in specs:
        if isinstance(spec.arg, ConstantArgument):
            flat.append(_fixed(spec.arg.value))
            continue
        kind = _NUMBERS.get(type(spec.arg))
        flat.append({"leaf": count, **({"as": kind} if kind else _complex(program, spec.arg))})
        count += 1
    out_spec = program.call_spec.out_spec
    if out_spec is None:
        return {"list": flat}, None

    def unflatten(results: Sequence[Any]) -> Any:
        return pytree.tree_unflatten([output_of(leaf, results) for leaf in flat], out_spec)

    return _tree_of(out_spec, iter(flat)), unflatten


def _complex(program: ExportedProgram, argument: Any) -> Tree:
    node = next((n for n in program.graph.nodes if n.name == argument.name), None)
    value = None if node is None else node.meta.get("val")
    return {"as": "complex"} if isinstance(value, torch.Tensor) and value.is_complex() else {}


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _fixed(value: Any) -> Tree:
    return {"value": value if _plain(value) else str(value)}


def _tree_of(spec: Any, flat: Iterator[Tree]) -> Tree:
    """The tree of one pytree specification; takes its leaves from `flat`."""
    if spec.is_leaf():
        return next(flat)
    parts = [_Part(_tree_of(child, flat)) for child in spec.children()]
    try:
        return _tree(pytree.SUPPORTED_NODES[spec.type].unflatten_fn(parts, spec.context))
    except Exception:  # a container that cannot be made of placeholders
        return {"other": [getattr(spec.type, "__name__", str(spec.type)), [part.tree for part in parts]]}


def _tree(value: Any) -> Tree:
    if isinstance(value, _Part):
        return value.tree
    if isinstance(value, Mapping):
        return {"dict": [[key, _tree(part)] for key, part in value.items()]}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {"named": [type(value).__name__, list(value._fields), [_tree(part) for part in value]]}
    if isinstance(value, list | tuple):
        return {"list" if isinstance(value, list) else "tuple": [_tree(part) for part in value]}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"dict": [[f.name, _tree(getattr(value, f.name))] for f in dataclasses.fields(value)]}
    if _plain(value):
        return {"value": value}
    raise TypeError(type(value).__name__)


def output_names(call: Call) -> dict[int, str]:
    """Output → the keys that lead to it ("logits", "aux.0"), for outputs that a dict or a named tuple names."""
    found: dict[int, str] = {}

    def walk(tree: Tree, path: str, named: bool) -> None:
        if "leaf" in tree:
            if named:
                found.setdefault(tree["leaf"], path)
            return
        if "value" in tree:
            return
        ((kind, content),) = tree.items()
        keys = [k for k, _ in content] if kind == "dict" else content[1] if kind == "named" else None
        children = [c for _, c in content] if kind == "dict" else content[-1] if kind in ("named", "other") else content
        for i, child in enumerate(children):
            key = str(i if keys is None else keys[i])
            walk(child, f"{path}.{key}" if path else key, named or keys is not None)

    if call.result is not None:
        walk(call.result, "", False)
    return found if len(set(found.values())) == len(found) else {}
