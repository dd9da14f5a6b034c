# SPDX-License-Identifier: Apache-2.0
"""What compile() can say before the first call: faults that every call would meet, and what runs by reference.

The native side plans the program for the shapes that the model declares, free extents replaced by examples, without running
or keeping anything. What it finds for declared extents holds for every call. What it finds for examples counts when two
different ones agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastinfer import _core
from fastinfer.errors import ModelError, UnsupportedError
from fastinfer.passes import dims as D
from fastinfer.program import Graph, Program

EXAMPLES = (8, 5)  # small: a map of 12 pixels and more would have its Winograd weights transformed, for nothing
Refusal = tuple[str, str, dict[str, Any]]  # label, reason, node


def check(program: Program, native: _core.Program, strict: bool) -> dict[str, str]:
    """Nodes that run by reference → why.

    Raises ModelError for what fails whatever is given, UnsupportedError for what nothing here can run and, if strict,
    for what has no native form.
    """
    found = list(_refusals(program.graph, native, True))
    for label, reason, node in found:
        if strict:
            raise UnsupportedError(f"{label} has no native form ({reason}), which strict=True forbids")
        if why := _without_reference(program, node):
            raise UnsupportedError(f"{label}: {why}" if reason in why else f"{label}: {reason}, and {why}")
    return {label: reason for label, reason, _ in found}


def _refusals(graph: Graph, native: _core.Program, outermost: bool) -> Iterator[Refusal]:
    found = native.check(_expected(graph, EXAMPLES[0], outermost))
    if outermost and found["fault"]:  # a subgraph's need not be reached
        raise ModelError(found["fault"])
    refused = found["by_reference"]
    if not all(exact for _, _, exact in refused):
        again = {node for node, _, _ in native.check(_expected(graph, EXAMPLES[1], outermost))["by_reference"]}
        refused = [r for r in refused if r[2] or r[0] in again]
    for node, reason, _ in refused:
        yield native.label(node), reason, graph.nodes[node]
    for inner, program in zip(graph.subgraphs, native.subprograms, strict=True):
        yield from _refusals(inner, program, False)


def _expected(graph: Graph, example: int, outermost: bool) -> list[tuple[int, int, list[int], bool]]:
    """(value, type, extents, whether every call has these) of all values whose rank and type are known."""
    exact = {p["value"] for p in graph.inputs if outermost and p["dtype"] and _fixed(p["dims"])}
    entries = []
    for value, (dtype, dims) in graph.expected.items():
        extents = [D.at(d, example) for d in dims]
        if all(0 <= e < 1 << 40 for e in extents):
            entries.append((value, dtype, extents, value in exact))
    return entries


def _fixed(dims: list | None) -> bool:
    return dims is not None and all(isinstance(d, int) for d in dims)


def _without_reference(program: Program, node: dict[str, Any]) -> str | None:
    from fastinfer import fallback  # onnx.reference, only where something needs it

    attributes = {k: ["tensor", program.tensors.get(v[1])] if v[0] == "tensor" else v for k, v in node["attrs"].items()}
    spec = fallback.NodeSpecDict(op=node["op"], domain=node["domain"], name=node["name"], attrs=attributes)
    return fallback.refusal(spec, len(node["outputs"]))
