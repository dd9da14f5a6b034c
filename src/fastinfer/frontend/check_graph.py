# SPDX-License-Identifier: Apache-2.0
"""A graph is well formed: every value is defined once and before its use, every node fits its operator's schema."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import onnx
import onnx_ir as ir

from fastinfer.errors import ModelError, UnsupportedError

MIN_OPSET, MAX_OPSET = 7, 26
# Operators of older models are taken in this opset's form, for which there are rules.
OLDEST_FORM = 6
# Domains whose operators are known by name rather than by an ONNX schema.
OPEN_DOMAINS = {"com.microsoft", "fastinfer"}
_Kind = onnx.defs.OpSchema.FormalParameterOption


def where(node: ir.Node) -> str:
    """'Conv 'stem'' or, without a name, 'Conv → 'stem_out''."""
    kind = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    if node.name:
        return f"{kind} '{node.name}'"
    return f"{kind} → '{node.outputs[0].name}'" if node.outputs else kind


def subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def check_opset(opsets: dict[str, int]) -> None:
    version = opsets.get("")
    if version is not None and not 1 <= version <= MAX_OPSET:
        raise UnsupportedError(f"the model is of ONNX opset {version}, fastinfer runs {MIN_OPSET} to {MAX_OPSET}")


# ------------------------------------------------------------------------------------------------------ values


def check_values(graph: ir.Graph | ir.Function) -> None:
    """Definitions before uses, in subgraphs too. An unsorted graph is sorted; a cyclic one is a ModelError."""
    if _unsorted(graph, set()):
        try:
            (graph.graph if isinstance(graph, ir.Function) else graph).sort()
        except ValueError:
            raise ModelError(f"graph '{graph.name}' is cyclic: {_cycle(graph)}") from None


def _unsorted(graph: ir.Graph | ir.Function, outer: set[ir.Value]) -> bool:
    """True if a value is used above its definition. Raises ModelError for one that has no definition at all."""
    names = [value.name for value in graph.inputs]
    for name in names:
        if names.count(name) > 1:
            raise ModelError(f"graph '{graph.name}': two inputs are named '{name}'")
    visible = set(outer)
    visible.update(graph.inputs)
    if not isinstance(graph, ir.Function):
        visible.update(graph.initializers.values())
    late = False
    own = {output for node in graph for output in node.outputs}
    for node in graph:
        for i, value in enumerate(node.inputs):
            if value is None or value in visible:
                continue
            if value not in own:
                raise ModelError(f"{where(node)}: input {i} '{value.name}' is defined nowhere")
            late = True
        for body in subgraphs(node):
            late |= _unsorted(body, visible | own)
        visible.update(node.outputs)
    for value in graph.outputs:
        if value not in visible:
            raise ModelError(f"graph '{graph.name}': its output '{value.name}' is defined nowhere")
    return late


def _cycle(graph: ir.Graph | ir.Function) -> str:
    """Names of nodes on a cycle: walk back from a node that never becomes ready until one repeats."""
    waiting = {node: _needs(node) for node in graph}
    while ready := [node for node, needs in waiting.items() if not needs & waiting.keys()]:
        for node in ready:
            del waiting[node]
    if not waiting:
        return "in a subgraph"
    path: list[ir.Node] = [next(iter(waiting))]
    while (step := next(iter(waiting[path[-1]] & waiting.keys()))) not in path:
        path.append(step)
    return " ← ".join(where(node) for node in [*path[path.index(step) :], step])


def _needs(node: ir.Node) -> set[ir.Node]:
    producers = {value.producer() for value in node.inputs if value is not None}
    for body in subgraphs(node):
        for inner in body:
            producers |= _needs(inner)
    return {producer for producer in producers if producer is not None}


# ------------------------------------------------------------------------------------------------------- nodes


@functools.lru_cache(maxsize=4096)
def schema_of(op_type: str, version: int, domain: str) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(op_type, version, domain)
    except onnx.defs.SchemaError:
        return None


def check_texts(graph: ir.Graph | ir.Function) -> None:
    """Names are text: protobuf hands over what is not UTF-8 as bytes."""
    for value in [*graph.inputs, *graph.outputs, *(graph.initializers.values() if isinstance(graph, ir.Graph) else ())]:
        _check_text(value.name, "a value's name")
    for node in graph:
        for text, what in ((node.op_type, "operator"), (node.domain, "domain"), (node.name, "name")):
            _check_text(text, f"a node's {what}")
        for value in node.outputs:
            _check_text(value.name, "a value's name")
        for attribute in node.attributes.values():
            _check_text(attribute.name, "an attribute's name")
            if attribute.type == ir.AttributeType.STRING and not attribute.is_ref():
                _check_text(attribute.value, f"{where(node)}: attribute '{attribute.name}'")
        for body in subgraphs(node):
            check_texts(body)


def _check_text(text: object, what: str) -> None:
    if text is not None and not isinstance(text, str):
        raise ModelError(f"{what} is not text in UTF-8: {text!r}")


def check_nodes(graph: ir.Graph | ir.Function, opsets: dict[str, int], local: set[tuple[str, str]]) -> None:
    """Every node's operator exists in the imported opset (or is one of the local functions), and the node fits it."""
    for node in graph:
        if (node.domain, node.op_type) not in local and node.domain not in OPEN_DOMAINS:
            _check_node(node, opsets)
        for body in subgraphs(node):
            check_nodes(body, opsets, local)


def _check_node(node: ir.Node, opsets: dict[str, int]) -> None:
    version = opsets.get(node.domain)
    if version is None:
        raise ModelError(f"{where(node)}: the model imports no opset for the domain '{node.domain or 'ai.onnx'}'")
    schema = schema_of(node.op_type, version, node.domain)
    if schema is None:
        raise UnsupportedError(
            f"{where(node)}: no such operator in opset {version} of '{node.domain or 'ai.onnx'}', "
            "and the model defines no function of that name"
        )
    if node.domain == "" and version < OLDEST_FORM:
        newer = schema_of(node.op_type, OLDEST_FORM, "")
        if newer is None or newer.since_version > schema.since_version:
            raise UnsupportedError(
                f"{where(node)}: the model is of ONNX opset {version}, fastinfer runs {MIN_OPSET} to {MAX_OPSET}"
            )
    _check_count(node, "inputs", len(node.inputs), schema.min_input, schema.max_input)
    _check_count(node, "outputs", len(node.outputs), schema.min_output, schema.max_output)
    for i, formal in enumerate(schema.inputs):
        if formal.option == _Kind.Single and i < len(node.inputs) and node.inputs[i] is None:
            raise ModelError(f"{where(node)}: input {i} ({formal.name}) is missing and not optional")
    _check_attributes(node, schema)


def _check_count(node: ir.Node, what: str, given: int, low: int, high: int) -> None:
    if not low <= given <= high:
        span = str(low) if low == high else f"{low} to {high}" if high < 2**31 - 1 else f"at least {low}"
        raise ModelError(f"{where(node)}: {given} {what} given, {span} needed")


def _check_attributes(node: ir.Node, schema: onnx.defs.OpSchema) -> None:
    formals = schema.attributes
    for name, attribute in node.attributes.items():
        formal = formals.get(name)
        if formal is None:
            raise ModelError(f"{where(node)}: has an attribute '{name}', which {node.op_type} does not know")
        if int(attribute.type) != int(formal.type.value):
            raise ModelError(
                f"{where(node)}: attribute '{name}' is of kind {attribute.type.name}, {formal.type.name} needed"
            )
    for name, formal in formals.items():
        if formal.required and name not in node.attributes:
            raise ModelError(f"{where(node)}: the attribute '{name}' is missing")
