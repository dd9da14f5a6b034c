# SPDX-License-Identifier: Apache-2.0
"""A graph over [B, L, ...] → the same over sequences of different lengths one behind the other, [1, ΣL, ...].

A conservative proof, node by node: each operator works on every token by itself, or over the tokens of one sequence in
a way that has a packed form (attention, pooling, positions). The first node that does neither ends it, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import onnx_ir as ir

from . import pattern
from .eliminate_dead_code import eliminate_dead_code
from .packing import rules_rows, rules_shape, rules_token
from .packing.translate import PREFIX, Rule, Translation, describe
from .packing.values import BATCH, LENGTH, Extent, Form, Packed, Refused, form_of

RULES = {**rules_shape.RULES, **rules_token.RULES}
ROW_RULES = {**RULES, **rules_rows.RULES}


@dataclass
class PackedPort:
    """How an input or output lies in the packed graph. form: "token", "sequence" or "uniform"; axis: where the tokens
    or sequences are; batch: where the original has its batch (-1: nowhere; -2: merged with the tokens)."""

    name: str
    form: str
    axis: int
    batch: int


@dataclass
class PackedGraph:
    """model: reads the original's inputs and those of `auxiliary`, writes the original's outputs."""

    model: ir.Model
    inputs: list[PackedPort] = field(default_factory=list)
    outputs: list[PackedPort] = field(default_factory=list)
    auxiliary: list[str] = field(default_factory=list)

    def notes(self) -> dict:
        return {"inputs": [asdict(p) for p in self.inputs], "outputs": [asdict(p) for p in self.outputs],
                "auxiliary": self.auxiliary}  # fmt: skip


def pack_sequences(model: ir.Model) -> PackedGraph | str:
    """The packed form of an optimized model, which is left as it is; or the reason why there is none."""
    t = Translation(model)
    try:
        ports = [_input(t, v) for v in model.graph.inputs]
        if not any(p.form == "token" for p in ports):
            return "no input has a free second axis, along which sequences could lie"
        for node in model.graph:
            _translate(t, node, RULES)
        outputs = [_output(t, v) for v in model.graph.outputs]
    except Refused as e:
        return str(e)
    return _build(t, model, ports, outputs)


def _input(t: Translation, v: ir.Value) -> PackedPort:
    dims = None if v.shape is None else list(v.shape)
    if dims is None or not isinstance(v.type, ir.TensorType) or v.dtype in (None, ir.DataType.STRING):
        raise Refused(f"input '{v.name}' is no tensor of known rank")
    fixed = [isinstance(d, int) for d in dims]
    batched = len(dims) > 0 and (not fixed[0] or dims[0] == 1)
    if not batched or not all(fixed[2:]):
        raise Refused(f"input '{v.name}' is {v.shape}; needed: a batch, then the sequence or fixed extents")
    shape = tuple(Extent(d) if isinstance(d, int) and i > 0 else (BATCH, LENGTH)[i] for i, d in enumerate(dims))
    form = form_of(shape)
    extents: list[int | str] = ["S" if form is Form.sequence else 1, *("T" if e.l else e.c for e in shape[1:])]
    new = ir.Value(name=v.name, type=v.type, shape=ir.Shape(extents))
    t.inputs[v.name or ""] = new
    t.values[v] = Packed(form, shape, new, dtype=v.dtype)
    return PackedPort(v.name or "", form.value, 1 if form is Form.token else 0, 0)


def independent_rows(model: ir.Model) -> str:
    """Empty when every output's row b depends on row b of the inputs alone, all being [B, fixed extents]; else the node
    that may mix rows, and why. By the same proof: a row is a sequence without an axis of its own length."""
    t = Translation(model)
    try:
        for v in model.graph.inputs:
            if _input(t, v).form != "sequence" or v.shape is None or isinstance(v.shape[0], int):
                return f"input '{v.name}' is {v.shape}; needed: a free batch, then fixed extents"
        for node in model.graph:
            _translate(t, node, ROW_RULES)
        for v in model.graph.outputs:
            p = t.read(v)
            if p is None or p.form is not Form.sequence or not p.dense or p.shape[:1] != (BATCH,):
                return f"output '{v.name}' has no batch in front"
    except Refused as e:
        return str(e)
    return ""


def _translate(t: Translation, node: ir.Node, rules: Mapping[tuple[str, str], Rule]) -> None:
    try:
        if pattern.is_op(node, "Constant"):
            t.values[node.outputs[0]] = t.constant_of(node.outputs[0])
            return
        if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values()):
            raise Refused("is control flow")
        x = [t.read(v) for v in node.inputs]
        rule = rules.get(("" if node.domain == "ai.onnx" else node.domain, node.op_type))
        if rule is None and all(p is None or (p.form is Form.uniform and p.dense) for p in x) and x:
            rule = rules_token.alone
        if rule is None:
            raise Refused("may mix tokens of different sequences, and has no packed form")
        for v, p in zip(node.outputs, rule(t, node, x)):
            t.values[v] = p
    except Refused as e:
        raise Refused(f"{describe(node)} {e}") from None


def _output(t: Translation, v: ir.Value) -> PackedPort:
    p = t.read(v)
    assert p is not None
    try:
        p = t.densify(p)
        if p.form is Form.pair:
            raise Refused("is over pairs of tokens")
    except Refused as e:
        raise Refused(f"output '{v.name}' {e}") from None
    t.values[v] = p.but(value=t.op("Identity", p.value))  # an output of its own, whoever else reads it
    batch = p.batch_axis()
    axis = p.length_axes()[0] if p.form is Form.token else batch if batch is not None else -1
    merged = p.form is Form.token and p.shape[axis].b
    return PackedPort(v.name or "", p.form.value, axis, -2 if merged else -1 if batch is None else batch)


def _build(t: Translation, model: ir.Model, ports: list[PackedPort], outputs: list[PackedPort]) -> PackedGraph:
    results = []
    for v in model.graph.outputs:
        value = t.values[v].value
        assert value is not None
        value.name, value.type = v.name, v.type
        results.append(value)
    imports = {**model.graph.opset_imports, pattern.DOMAIN: 1}
    graph = ir.Graph(list(t.inputs.values()), results, nodes=t.nodes, initializers=list(t.constants.values()),
                     opset_imports=imports, name="packed")  # fmt: skip
    packed = ir.Model(graph, ir_version=model.ir_version)
    eliminate_dead_code(packed)
    used = [v for v in graph.inputs if v.uses() or not (v.name or "").startswith(PREFIX)]
    for v in [v for v in graph.inputs if v not in used]:
        graph.inputs.remove(v)
    auxiliary = [(v.name or "").removeprefix(PREFIX) for v in graph.inputs if (v.name or "").startswith(PREFIX)]
    return PackedGraph(packed, ports, outputs, auxiliary)
