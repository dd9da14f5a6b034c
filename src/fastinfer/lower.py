# SPDX-License-Identifier: Apache-2.0
"""onnx_ir.Model → Program: values get numbers, attributes become plain data, subgraphs name what they capture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from fastinfer.errors import ModelError
from fastinfer.passes.pack_sequences import PackedGraph
from fastinfer.passes.pattern import MADE, origins
from fastinfer.passes.shapes import Shapes
from fastinfer.program import Graph, Program

_KINDS = {
    ir.AttributeType.INT: "i",
    ir.AttributeType.FLOAT: "f",
    ir.AttributeType.STRING: "s",
    ir.AttributeType.INTS: "ints",
    ir.AttributeType.FLOATS: "floats",
    ir.AttributeType.STRINGS: "strings",
}
_OPAQUE = 255


def lower(
    model: ir.Model,
    defaults: Mapping[str, ir.TensorProtocol] | None = None,
    packed: PackedGraph | str | None = None,
    rows: str = "not asked for",
    output_names: Mapping[int, str] | None = None,
    ranges: Mapping[str, tuple[int, int | None]] | None = None,
    expect: bool = False,
) -> Program:
    """Lower a model (newest opset, functions inlined, passes applied). defaults: of inputs that may be left out;
    packed: the form for sequences of different lengths, or why there is none; rows: why rows may not share a batch.
    output_names: names for some outputs, by index. ranges: (least, greatest) of free extents by name. expect: note
    types and shapes for check.py."""
    tensors: dict[str, Any] = {}
    shared: dict[int, str] = {}
    lowering = _Lowering(tensors, {}, shared=shared, shapes=Shapes(model) if expect else None)
    graph = lowering.graph(model.graph, [])
    if ranges:
        for port in graph.inputs:
            port["ranges"] = {d: list(ranges[d]) for d in port["dims"] or () if d in ranges}
    for i, name in (output_names or {}).items():
        if name not in (port["name"] for port in graph.outputs):
            graph.outputs[i]["name"] = name
    keys = {name: lowering.key(_numpy(tensor)) for name, tensor in (defaults or {}).items()}
    program = Program(graph, tensors, {"opsets": dict(model.opset_imports), "defaults": keys})
    if isinstance(packed, str):
        program.packed = {"refused": packed, "rows": rows}
    elif packed is not None:
        lowered = _Lowering(tensors, {}, shared=shared).graph(packed.model.graph, [])
        program.packed = {"graph": lowered, **packed.notes()}
    return program


class _Lowering:
    """Lowers one graph; ``outer`` maps values of enclosing graphs that are constants to their tensor keys."""

    def __init__(self, tensors: dict[str, Any], outer: dict[ir.Value, str], nested: bool = False,
                 shared: dict[int, str] | None = None, shapes: Shapes | None = None) -> None:  # fmt: skip
        self.shapes = shapes
        self.nested = nested
        self.shared = {} if shared is None else shared  # id of a constant's tensor → key: two graphs hold it once
        self.tensors = tensors
        self.outer = outer
        self.numbers: dict[ir.Value, int] = {}
        self.constants: dict[int, str] = {}
        self.subgraphs: list[Graph] = []

    def number(self, value: ir.Value) -> int:
        return self.numbers.setdefault(value, len(self.numbers))

    def key(self, array: Any) -> str:
        key = f"t{len(self.tensors)}"
        self.tensors[key] = array
        return key

    def constant_key(self, value: ir.Value) -> str | None:
        if value in self.numbers:
            return self.constants.get(self.numbers[value])
        return self.outer.get(value)

    def graph(self, graph: ir.Graph, captures: list[ir.Value]) -> Graph:
        # What a body declares about its inputs may be stale (a loop-carried shape grows), so only the model's are checked.
        ports = [_input_port(self.number(v), v) for v in graph.inputs]
        inputs = [{**p, "dtype": 0, "dims": None} for p in ports] if self.nested else ports
        given = set(graph.inputs)
        for v in captures:
            if (key := self.outer.get(v)) is not None:
                self.constants[self.number(v)] = key
            else:
                inputs.append({"value": self.number(v), "name": v.name or "", "dtype": 0, "dims": None})
        for v in graph.initializers.values():
            if v not in given:
                key = self.shared.get(id(v.const_value))
                if key is None:
                    key = self.shared[id(v.const_value)] = self.key(_array(v))
                self.constants[self.number(v)] = key
        nodes = []
        for n in graph:
            if n.op_type == "Constant" and n.domain == "":
                self.constants[self.number(n.outputs[0])] = self.key(_constant_value(n))
            else:
                nodes.append(self.node(n))
        outputs = [port_of(self.number(v), v) for v in graph.outputs]
        return Graph(
            len(self.numbers), inputs, outputs, self.constants, nodes, self.subgraphs, dict(self.expectations())
        )

    def expectations(self) -> Iterator[tuple[int, tuple[int, tuple]]]:
        for value, number in self.numbers.items() if self.shapes is not None else ():
            port = port_of(number, value)
            dims = () if port["dtype"] == _OPAQUE else self.shapes.dims(value)  # type: ignore[union-attr]
            if port["dtype"] and dims is not None and number not in self.constants:
                yield number, (port["dtype"], dims)

    def node(self, n: ir.Node) -> dict[str, Any]:
        inputs = [self.number(v) if v is not None else -1 for v in n.inputs]
        attrs: dict[str, list] = {}
        own = len(inputs)
        for name in sorted(n.attributes):
            a = n.attributes[name]
            if a.type == ir.AttributeType.GRAPH:
                captured = _captures(a.as_graph())
                scope = {v: k for v in captured if (k := self.constant_key(v)) is not None}
                passed = [v for v in captured if v not in scope]
                inputs += [self.number(v) for v in passed]
                self.subgraphs.append(
                    _Lowering(self.tensors, scope, nested=True, shapes=self.shapes).graph(a.as_graph(), captured)
                )
                attrs[name] = ["graph", len(self.subgraphs) - 1]
                attrs[f"{name}_captures"] = ["i", len(passed)]
                attrs["own_inputs"] = ["i", own]
            elif a.type == ir.AttributeType.TENSOR:
                attrs[name] = ["tensor", self.key(_numpy(a.as_tensor()))]
            elif a.type in _KINDS:
                value = a.value
                attrs[name] = [_KINDS[a.type], list(value) if isinstance(value, tuple) else value]
            elif a.type in (ir.AttributeType.TYPE_PROTO, ir.AttributeType.SPARSE_TENSOR):
                attrs[name] = ["s", str(a.value)]
            else:
                raise ModelError(f"node '{n.name}' ({n.op_type}): attribute '{name}' of type {a.type} is not supported")
        outputs = [self.number(v) if v.name != "" and (v.uses() or v.is_graph_output() or i == 0) else -1
                   for i, v in enumerate(n.outputs)]  # fmt: skip
        domain = "" if n.domain == "ai.onnx" else n.domain
        lowered = {"op": n.op_type, "domain": domain, "name": _name(n), "inputs": inputs, "outputs": outputs,
                   "attrs": attrs}  # fmt: skip
        also = [name for name in origins(n) if name != lowered["name"]]
        return {**lowered, "also": also} if also else lowered


# What a reader looks for first when several nodes became one step.
_HEAVY = {"Conv", "ConvTranspose", "MatMul", "Gemm", "Attention", "LSTM", "GRU", "MultiHeadAttention", "FusedConv"}


def _name(n: ir.Node) -> str:
    """That of the model's node which this one stands for: names that passes make say nothing to a reader."""
    name = n.name or n.outputs[0].name or ""
    if MADE not in name:
        return name
    own = origins(n)
    return next((name for name, op in own.items() if op in _HEAVY), next(iter(own), name))


def _captures(graph: ir.Graph) -> list[ir.Value]:
    """Values of enclosing graphs that this graph, or one inside it, reads; in order of first use."""
    inside: set[ir.Value] = set(graph.inputs) | set(graph.initializers.values())
    found: dict[ir.Value, None] = {}

    def read(v: ir.Value | None) -> None:
        if v is not None and v not in inside:
            found[v] = None

    for n in graph:
        for v in n.inputs:
            read(v)
        for a in n.attributes.values():
            if a.type == ir.AttributeType.GRAPH:
                for v in _captures(a.as_graph()):
                    read(v)
        inside.update(n.outputs)
    for v in graph.outputs:
        read(v)
    return list(found)


def port_of(number: int, v: ir.Value) -> dict[str, Any]:
    """What the program knows of an input or output: its value's number, name, type code and extents."""
    tensor = v.type is None or isinstance(v.type, ir.TensorType)
    code = int(v.dtype) if tensor and v.dtype is not None else 0
    if not tensor or code == 8:
        return {"value": number, "name": v.name or "", "dtype": _OPAQUE, "dims": None}
    dims = None
    if v.shape is not None:
        dims = [d if isinstance(d, int) else (d.value or f"?{i}") for i, d in enumerate(v.shape)]
    return {"value": number, "name": v.name or "", "dtype": code, "dims": dims}


def _input_port(number: int, v: ir.Value) -> dict[str, Any]:
    """As port_of; of optional(tensor(t)), which takes a tensor or None, `optional` is the type code of t."""
    port = port_of(number, v)
    if isinstance(v.type, ir.OptionalType) and isinstance(v.type.elem_type, ir.TensorType):
        return {**port, "dtype": 0, "optional": int(v.type.dtype)}
    return port


def _numpy(tensor: ir.TensorProtocol) -> np.ndarray:
    array = tensor.numpy()
    if array.dtype.kind in "SU":
        array = array.astype(object)
    return array


def _array(v: ir.Value) -> np.ndarray:
    if v.const_value is None:
        raise ModelError(f"initializer '{v.name}' has no data")
    return _numpy(v.const_value)


def _constant_value(n: ir.Node) -> Any:
    name, a = next(iter(n.attributes.items()))
    if name == "value":
        return _numpy(a.as_tensor())
    if name in ("value_float", "value_floats"):
        return np.array(a.value, np.float32)
    if name in ("value_int", "value_ints"):
        return np.array(a.value, np.int64)
    if name in ("value_string", "value_strings"):
        return np.array(a.value, object)
    raise ModelError(f"node '{n.name}' (Constant): attribute '{name}' is not supported")
