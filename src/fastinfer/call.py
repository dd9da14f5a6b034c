# SPDX-License-Identifier: Apache-2.0
"""How a torch module is called: its parameters as trees over the model's inputs, its result as a tree over the outputs.

Plain data, so that a saved program is called as the module was, without torch. A tree is one of

- ``{"leaf": i}``: the model's input or output i; with ``"as"``: "complex" (the model holds real and imaginary part in an
  axis more), "int", "float" or "bool" (a Python number)
- ``{"value": x}``: None, a bool, number or string that was fixed when the module was captured
- ``{"list": [tree…]}``, ``{"tuple": [tree…]}``, ``{"dict": [[key, tree]…]}``, ``{"named": [name, [field…], [tree…]]}``
- ``{"other": [name, [tree…]]}``: a container that only torch's pytree knows
"""

from __future__ import annotations

import collections
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastinfer.errors import InputError, ModelError

Tree = dict[str, Any]
_NUMBERS: dict[str, Callable[[Any], Any]] = {"int": int, "float": float, "bool": bool}


@dataclass
class Call:
    """parameters: (name, tree) in the order of the signature. n_inputs: of the model. result: None for a plain tuple of
    all outputs. unflatten: makes the module's own types out of the outputs (not saved)."""

    parameters: list[tuple[str, Tree]]
    n_inputs: int
    result: Tree | None
    unflatten: Callable[[Sequence[Any]], Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        first = [tree for _, tree in self.parameters[: self.n_inputs]]
        # One array per parameter, in order: a call with that many arguments needs no binding.
        self.plain = first == [{"leaf": i} for i in range(self.n_inputs)]

    def as_dict(self) -> dict[str, Any] | None:
        """What a saved program keeps; None where a dict's key is neither text nor number, which JSON cannot hold."""
        held = [tree for _, tree in self.parameters] + ([] if self.result is None else [self.result])
        if not all(isinstance(key, str | int) for tree in held for key in _keys(tree)):
            return None
        return {"parameters": self.parameters, "n_inputs": self.n_inputs, "result": self.result}

    @staticmethod
    def from_dict(data: Mapping[str, Any], n_outputs: int) -> Call:
        """Of a file; raises ModelError (or what a wrong type raises)."""
        n_inputs = int(data["n_inputs"])
        parameters = [(str(name), _checked(tree, n_inputs)) for name, tree in data["parameters"]]
        return Call(parameters, n_inputs, None if data["result"] is None else _checked(data["result"], n_outputs))

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """The model's inputs for a call of the module. Raises InputError."""
        names = [name for name, _ in self.parameters]
        if len(args) > len(names):
            raise InputError(f"given {len(args)} positional arguments, needed at most {len(names)}: {', '.join(names)}")
        given = dict(zip(names, args))
        for name, value in kwargs.items():
            if name in given:
                raise InputError(f"argument '{name}' is given twice")
            if name not in names:
                raise InputError(f"no argument is called '{name}'; needed: {', '.join(names)}")
            given[name] = value
        found: list[Any] = [None] * self.n_inputs
        for name, tree in self.parameters:
            if name in given:
                _flatten(given[name], tree, name, found)
            elif _has_leaf(tree):
                raise InputError(f"missing argument: '{name}'; needed: {', '.join(names)}")
        return found

    def rebuild(self, results: Sequence[Any]) -> Any:
        """What the module would have returned."""
        if self.result is None:
            return results[0] if len(results) == 1 else tuple(results)
        if self.unflatten is not None:
            return self.unflatten(results)
        return _built(self.result, results)


# ---------------------------------------------------------------------------------------------------------- trees


def leaves(tree: Tree) -> list[Tree]:
    """Leaves and fixed values, in order."""
    if "leaf" in tree or "value" in tree:
        return [tree]
    return [leaf for child in _children(tree) for leaf in leaves(child)]


def _children(tree: Tree) -> list[Tree]:
    ((kind, content),) = tree.items()
    if kind == "dict":
        return [child for _, child in content]
    return content[-1] if kind in ("named", "other") else content


def _keys(tree: Tree) -> list[Any]:
    if "leaf" in tree or "value" in tree:
        return []
    own = [key for key, _ in tree["dict"]] if "dict" in tree else []
    return own + [key for child in _children(tree) for key in _keys(child)]


def _has_leaf(tree: Tree) -> bool:
    return any("leaf" in leaf for leaf in leaves(tree))


def _checked(tree: Any, n: int, depth: int = 0) -> Tree:
    """A tree over n arrays out of a file, or ModelError."""
    if depth > 64 or not isinstance(tree, dict):
        raise ModelError(f"the call of the program holds {type(tree).__name__}, nested {depth} deep; a tree is needed")

    def checked(children: Any) -> list[Tree]:
        return [_checked(child, n, depth + 1) for child in children]

    if "value" in tree:
        return {"value": tree["value"]}
    if "leaf" in tree:
        if not 0 <= (leaf := int(tree["leaf"])) < n:
            raise ModelError(f"the call of the program refers to array {leaf} of {n}")
        return {"leaf": leaf, **({"as": str(tree["as"])} if "as" in tree else {})}
    ((kind, content),) = tree.items()
    if kind == "dict":
        return {"dict": [[key, _checked(child, n, depth + 1)] for key, child in content]}
    if kind == "named":
        fields = [str(f) for f in content[1]]
        collections.namedtuple(str(content[0]), fields)  # raises ValueError for what cannot be names
        if len(fields) != len(content[2]):
            raise ModelError(f"the call of the program names {len(fields)} of {len(content[2])} parts")
        return {"named": [str(content[0]), fields, checked(content[2])]}
    if kind == "other":
        return {"other": [str(content[0]), checked(content[1])]}
    if kind in ("list", "tuple"):
        return {kind: checked(content)}
    raise ModelError(f"the call of the program holds a '{kind}', which is not known")


# --------------------------------------------------------------------------------------------------------- binding


def _flatten(value: Any, tree: Tree, where: str, found: list[Any]) -> None:
    """Puts the arrays of `value` into `found` where `tree` says."""
    if "leaf" in tree:
        if isinstance(value, Mapping) or value is None:
            raise InputError(f"argument '{where}': a {type(value).__name__} was given, needed: an array")
        found[tree["leaf"]] = _as_real(value, where) if tree.get("as") == "complex" else value
        return
    if "value" in tree:
        if not _equal(value, tree["value"]):
            raise InputError(
                f"argument '{where}': {_brief(value)} was given, but the module was captured with {tree['value']!r}; "
                "compile it with that in example_inputs"
            )
        return
    ((kind, content),) = tree.items()
    children = _children(tree)
    if kind == "dict":
        keys = [key for key, _ in content]
        if not isinstance(value, Mapping) or set(value) != set(keys):
            raise InputError(f"argument '{where}': {_brief(value)} was given, needed: a dict of {_listed(keys)}")
        parts = [(value[key], f"{where}[{key!r}]") for key in keys]
    elif kind == "other":
        torch = sys.modules.get("torch")
        flat = torch.utils._pytree.tree_leaves(value) if torch is not None else []
        children = leaves(tree)
        if len(flat) != len(children):
            raise InputError(
                f"argument '{where}': {_brief(value)} was given, needed: a {content[0]} as in the examples"
            )
        parts = [(part, f"{where}[{i}]") for i, part in enumerate(flat)]
    else:
        if not isinstance(value, list | tuple) or len(value) != len(children):
            raise InputError(f"argument '{where}': {_brief(value)} was given, needed: a {kind} of {len(children)}")
        parts = [(part, f"{where}[{i}]") for i, part in enumerate(value)]
    for (part, name), child in zip(parts, children):
        _flatten(part, child, name, found)


def _equal(given: Any, fixed: Any) -> bool:
    if fixed is None or isinstance(fixed, bool | str):
        return given is fixed or (type(given) is type(fixed) and given == fixed)
    return isinstance(given, int | float | np.generic) and not isinstance(given, bool) and bool(given == fixed)


def _brief(value: Any) -> str:
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)[:80]
    if isinstance(value, Mapping):
        return f"a dict of {_listed(list(value))}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def _listed(keys: list) -> str:
    return ", ".join(map(repr, keys)) or "nothing"


# ----------------------------------------------------------------------------------------------------- complex numbers


def _as_real(value: Any, where: str) -> Any:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        if not value.is_complex():
            raise InputError(f"argument '{where}': {str(value.dtype)[6:]} was given, needed: complex numbers")
        return torch.view_as_real(value.detach().resolve_conj())
    array = np.asarray(value)
    if array.dtype.kind != "c":
        raise InputError(f"argument '{where}': {array.dtype} was given, needed: complex numbers")
    return _view(np.ascontiguousarray(array).reshape(*array.shape, 1), {8: "float32", 16: "float64"})


def _view(array: np.ndarray, types: dict[int, str]) -> np.ndarray:
    return array.view(types[array.dtype.itemsize])


def output_of(leaf: Tree, results: Sequence[Any]) -> Any:
    if "value" in leaf:
        return leaf["value"]
    result, kind = results[leaf["leaf"]], leaf.get("as")
    if kind in _NUMBERS:
        return _NUMBERS[kind](result)
    if kind != "complex":
        return result
    if isinstance(result, np.ndarray):
        return _view(result, {4: "complex64", 8: "complex128"})[..., 0]
    return sys.modules["torch"].view_as_complex(result)


def _built(tree: Tree, results: Sequence[Any]) -> Any:
    if "leaf" in tree or "value" in tree:
        return output_of(tree, results)
    ((kind, content),) = tree.items()
    made = [_built(child, results) for child in _children(tree)]
    if kind == "dict":
        return dict(zip((key for key, _ in content), made))
    if kind == "named":
        return collections.namedtuple(content[0], content[1])(*made)
    return made if kind == "list" else tuple(made)
