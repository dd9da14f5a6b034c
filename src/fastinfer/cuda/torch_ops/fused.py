# SPDX-License-Identifier: Apache-2.0
"""Operators of the domain `fastinfer`, by their function bodies: standard operators one after another, float32 in between
where half-precision products are summed, one rounding at the end (the caller's)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from fastinfer.cuda.dtypes import CODES
from fastinfer.cuda.torch_ops.call import HALF, Call, TorchOp
from fastinfer.errors import UnsupportedError

MAX_FORMS = 512
_KINDS = {int: ir.AttributeType.INT, float: ir.AttributeType.FLOAT, str: ir.AttributeType.STRING}
_LISTS = {int: ir.AttributeType.INTS, float: ir.AttributeType.FLOATS, str: ir.AttributeType.STRINGS}


@dataclass
class _Step:
    run: TorchOp
    node: dict[str, Any]
    attributes: dict[str, Any]


@dataclass
class Form:
    """A body: values are numbered, the node's inputs first."""

    n_inputs: int
    constants: dict[int, np.ndarray]
    steps: list[_Step]
    outputs: list[int]

    def __call__(self, call: Call) -> list[torch.Tensor | None]:
        """Values that only constants and shapes decide stay on the host; others are on the call's device."""
        host: dict[int, np.ndarray] = dict(self.constants)
        values: dict[int, torch.Tensor] = {}
        given_known = {i: k for i in range(self.n_inputs) if i < call.n_inputs and (k := call.known(i)) is not None}
        for i in range(self.n_inputs):
            if (small := call.small(i)) is not None:
                host[i] = small  # scales and biases: in float32, whatever the storage
            elif call.has(i):
                values[i] = call.x(i)
        for step in self.steps:
            given = step.node["inputs"]
            known = [host.get(v, given_known.get(v)) for v in given]
            on_host = all(v < 0 or v in host for v in given)
            device = torch.device("cpu") if on_host else call.device
            tensors = [None if v < 0 or v in host else values[v] for v in given]
            sub = Call(step.node, tensors, known, step.attributes, call.read_back, call.memo, device)
            made = step.run(sub)
            on_host |= step.node["op"] in ("Shape", "Size")
            for v, y in zip(step.node["outputs"], [made] if isinstance(made, torch.Tensor) else made):
                if v >= 0 and y is not None:
                    if on_host:
                        host[v] = y.numpy()
                    else:
                        values[v] = y
        return [values[v] if v in values else call.upload(host[v]) for v in self.outputs]


def _attribute(name: str, value: Any) -> ir.Attr:
    if isinstance(value, np.ndarray):
        return ir.Attr(name, ir.AttributeType.TENSOR, ir.tensor(value))
    if isinstance(value, list | tuple):
        kind = type(value[0]) if value else int
        return ir.Attr(name, _LISTS[kind], list(value))
    return ir.Attr(name, _KINDS[type(value)], value)


def _type(dtype: torch.dtype) -> ir.DataType:
    """Half-precision storage stands for float32."""
    if dtype in HALF:
        return ir.DataType.FLOAT
    return ir.DataType.DOUBLE if dtype == torch.float64 else ir.DataType(CODES.get(dtype, 1))


def form(call: Call, attributes: dict[str, Any], table: dict[tuple[str, str], TorchOp]) -> Form:
    """The body of the call's node for inputs of these ranks and types. Raises UnsupportedError."""
    from fastinfer.passes import fused

    def value(i: int) -> ir.Value | None:
        if not call.has(i):
            return None
        x = call.x(i)
        return ir.Value(name=f"x{i}", shape=ir.Shape(list(x.shape)), type=ir.TensorType(_type(x.dtype)))

    op = call.node["op"]
    if op not in fused.BODIES:
        raise UnsupportedError(f"fastinfer.{op} has no function body")
    node = ir.Node(
        "fastinfer", op, [value(i) for i in range(call.n_inputs)], [_attribute(k, v) for k, v in attributes.items()],
        num_outputs=call.n_outputs, name=call.node.get("name", ""),
    )  # fmt: skip
    return _read(fused.body(node), table)


def _read(function: ir.Function, table: dict[tuple[str, str], TorchOp]) -> Form:
    numbers: dict[ir.Value, int] = {}

    def number(v: ir.Value | None) -> int:
        return -1 if v is None else numbers.setdefault(v, len(numbers))

    inputs = [number(v) for v in function.inputs]
    constants: dict[int, np.ndarray] = {}
    steps: list[_Step] = []
    for n in function:
        if n.op_type == "Constant":
            constants[number(n.outputs[0])] = next(iter(n.attributes.values())).as_tensor().numpy()
            continue
        if ("", n.op_type) not in table:
            raise UnsupportedError(f"the body of {function.name} needs {n.op_type}")
        attributes = {k: list(a.value) if isinstance(a.value, tuple) else a.value for k, a in n.attributes.items()}
        node = {"op": n.op_type, "domain": "", "name": n.name or "", "inputs": [number(v) for v in n.inputs],
                "outputs": [number(v) for v in n.outputs]}  # fmt: skip
        steps.append(_Step(table["", n.op_type], node, attributes))
    return Form(len(inputs), constants, steps, [number(v) for v in function.outputs])


class FusedOp:
    """One operator of the domain, for all its nodes; forms are made when first met."""

    def __init__(self, table: dict[tuple[str, str], TorchOp]) -> None:
        self._table = table
        self._forms: dict[Any, Form] = {}

    def __call__(self, call: Call) -> list[torch.Tensor | None]:
        key = call.form()
        made = self._forms.get(key)
        if made is None:
            if len(self._forms) >= MAX_FORMS:
                self._forms.clear()
            made = self._forms[key] = form(call, call.attributes, self._table)
        return [None if y is None else self._rounded(call, y) for y in made(call)]

    @staticmethod
    def _rounded(call: Call, y: torch.Tensor) -> torch.Tensor:
        given = next((t.dtype for t in call.tensors if t is not None and t.is_floating_point()), None)
        return y.to(given) if given in HALF and y.dtype == torch.float32 else y
