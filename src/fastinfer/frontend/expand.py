# SPDX-License-Identifier: Apache-2.0
"""op(x) → ONNX's own function body of op, for operators without a native kernel when the body's operators have one."""

from __future__ import annotations

from collections.abc import Collection

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from fastinfer.frontend.check_graph import MAX_OPSET, schema_of, subgraphs
from fastinfer.frontend.infer import infer_shapes
from fastinfer.frontend.upgrade import upgrade_graph

# Bodies may call other functions (SoftmaxCrossEntropyLoss → NegativeLogLikelihoodLoss); the deepest chain is 3.
MAX_ROUNDS = 5
# Their attributes are graphs, which only the expansion can run.
ALWAYS = {"SequenceMap", "FlexAttention"}
_VERSIONS = {"": MAX_OPSET, "ai.onnx.preview": 1}
_DOMAIN = "fastinfer.expanded"


def expand_functions(model: ir.Model, native: Collection[str] | None = None) -> None:
    """Expands in place. native=None: the operators of fastinfer._core, or only ALWAYS when it is not built."""
    known = _core_ops() if native is None else {name.removeprefix("::") for name in native}
    for _ in range(MAX_ROUNDS):
        nodes = [node for node in model.graph.all_nodes() if _candidate(node, known)]
        if not nodes:
            return
        if any(_schema(node).has_context_dependent_function for node in nodes):  # type: ignore[union-attr]
            infer_shapes(model)
        chosen = [(node, body) for node in nodes if (body := _body(node)) is not None and _pays(node, body, known)]
        if not chosen:
            return
        _inline(model, chosen)
        upgrade_graph(model.graph, MAX_OPSET)


def _core_ops() -> set[str] | None:
    try:
        from fastinfer import _core
    except ImportError:
        return None
    return {name.removeprefix("::") for name in _core.native_ops()}


def _schema(node: ir.Node) -> onnx.defs.OpSchema | None:
    return schema_of(node.op_type, _VERSIONS[node.domain], node.domain) if node.domain in _VERSIONS else None


def _candidate(node: ir.Node, known: set[str] | None) -> bool:
    if node.op_type not in ALWAYS and (known is None or node.op_type in known):
        return False
    schema = _schema(node)
    return schema is not None and (schema.has_function or schema.has_context_dependent_function)


def _pays(node: ir.Node, body: ir.Function, known: set[str] | None) -> bool:
    """A body that leads back to the fallback is worse than the operator itself there."""
    if node.op_type in ALWAYS:
        return True
    assert known is not None
    return all(n.op_type in known or n.op_type == "Constant" or _candidate(n, known) for n in body.all_nodes())


def _body(node: ir.Node) -> ir.Function | None:
    """The function body for this node's attributes and input types; None when ONNX cannot build one."""
    schema = _schema(node)
    assert schema is not None
    if schema.has_function:
        versions = [v for v in schema.function_opset_versions if v <= MAX_OPSET]
        data = schema.get_function_with_opset_version(max(versions)) if versions else b""
    else:
        types = [_type_bytes(value) for value in node.inputs]
        versions = [v for v in schema.context_dependent_function_opset_versions if v <= _VERSIONS[node.domain]]
        if None in types or not versions:
            return None
        proto = ir.serde.serialize_node(node).SerializeToString()
        data = schema.get_context_dependent_function_with_opset_version(max(versions), proto, types)
    if not data:
        return None
    function = _function(onnx.FunctionProto.FromString(data), len(node.outputs))
    defined = set(function.inputs) | {output for inner in function.all_nodes() for output in inner.outputs}
    defined |= {value for inner in function.all_nodes() for body in subgraphs(inner) for value in body.inputs}
    if any(value not in defined for inner in function.all_nodes() for value in inner.inputs if value is not None):
        return None  # a subgraph that reads values of the graph around the node
    for inner in function.all_nodes():
        inner.version = function.opset_imports.get("", MAX_OPSET)
    return function


def _function(proto: onnx.FunctionProto, n_outputs: int) -> ir.Function:
    """The IR form with as many outputs as the node has; a body does not make optional outputs that were not asked for."""
    del proto.output[n_outputs:]
    made = {name for node in proto.node for name in node.output} | set(proto.input)
    for name in proto.output:
        if name not in made:
            proto.node.append(onnx.helper.make_node("Identity", [proto.input[0]], [name]))
    return ir.serde.deserialize_function(proto)


def _type_bytes(value: ir.Value | None) -> bytes | None:
    proto = onnx.TypeProto()
    if value is None:
        return proto.SerializeToString()
    if value.type is None:
        return None
    ir.serde.serialize_type_into(proto, value.type)
    if value.shape is not None and proto.HasField("tensor_type"):
        ir.serde.serialize_shape_into(proto, value.shape)
    return proto.SerializeToString()


def _inline(model: ir.Model, chosen: list[tuple[ir.Node, ir.Function]]) -> None:
    for i, (node, body) in enumerate(chosen):
        schema = _schema(node)
        assert schema is not None
        for name, formal in schema.attributes.items():
            if name not in node.attributes and formal.default_value.name:
                node.attributes[name] = ir.serde.deserialize_attribute(formal.default_value)
        for name, attribute in list(node.attributes.items()):
            if attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
                del node.attributes[name]  # the body holds it
        node.domain, node.op_type, node.overload = _DOMAIN, f"{node.op_type}.{i}", ""
        body.domain, body.name, body.overload = node.domain, node.op_type, ""
        body.opset_imports.clear()
        model.functions[body.identifier()] = body
    model.opset_imports[_DOMAIN] = 1
    InlinePass()(model)
    model.functions.clear()
    model.opset_imports.pop(_DOMAIN, None)
