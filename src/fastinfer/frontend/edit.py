# SPDX-License-Identifier: Apache-2.0
"""Edit: what an upgrade rule does to one node. New nodes go in front of it, in the newest opset's form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from fastinfer.errors import UnsupportedError
from fastinfer.frontend.check_graph import MAX_OPSET, where


class Edit:
    """One node under change; `version` is the opset its present form belongs to."""

    def __init__(self, node: ir.Node, version: int) -> None:
        self.node = node
        self.version = version

    @property
    def graph(self) -> ir.Graph:
        assert self.node.graph is not None
        return self.node.graph

    # ------------------------------------------------------------------------------------------- attributes

    def take(self, name: str, default: Any = None) -> Any:
        """Removes an attribute and returns its value."""
        attribute = self.node.attributes.pop(name, None)
        return default if attribute is None else attribute.value

    def get(self, name: str, default: Any = None) -> Any:
        attribute = self.node.attributes.get(name)
        return default if attribute is None else attribute.value

    def set(self, name: str, value: Any) -> None:
        self.node.attributes[name] = ir.convenience.convert_attribute(name, value)

    # ----------------------------------------------------------------------------------------------- inputs

    def has(self, i: int) -> bool:
        return i < len(self.node.inputs) and self.node.inputs[i] is not None

    def input(self, i: int) -> ir.Value | None:
        return self.node.inputs[i] if i < len(self.node.inputs) else None

    def set_input(self, i: int, value: ir.Value | None) -> None:
        if i >= len(self.node.inputs):
            if value is None:
                return
            self.node.resize_inputs(i + 1)
        self.node.replace_input_with(i, value)

    # ------------------------------------------------------------------------------------------------ nodes

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        n_outputs: int = 1,
        domain: str = "",
    ) -> Any:
        """A new node in front of this one; its output, or outputs when there are several."""
        new = ir.node(op_type, inputs, attributes, domain=domain, num_outputs=n_outputs, version=MAX_OPSET)
        new.name = f"{self.node.name or self.node.op_type}/{op_type}"
        self.graph.insert_before(self.node, new)
        return new.outputs[0] if n_outputs == 1 else tuple(new.outputs)

    def constant(self, value: Any, dtype: Any = np.int64) -> ir.Value:
        array = np.asarray(value, dtype)
        out = self.op("Constant", [], {"value": ir.tensor(array)})
        out.type, out.shape = ir.TensorType(ir.DataType.from_numpy(array.dtype)), ir.Shape(array.shape)
        return out

    def constant_like(self, value: Any, like: ir.Value | None) -> ir.Value:
        """A scalar of like's type."""
        assert like is not None
        if like.dtype is not None and like.dtype != ir.DataType.STRING:
            return self.constant(value, like.dtype.numpy())
        return self.op("CastLike", [self.constant(value, np.float64), like])

    def replace(self, *values: ir.Value | None) -> None:
        """Puts values in the place of this node's outputs (None: it is not used) and drops the node."""
        for old, new in zip(self.node.outputs, values, strict=True):
            if new is None:
                continue
            if new.is_graph_input() or new.is_initializer() or new.is_graph_output() or new.producer() is None:
                new = self.op("Identity", [new])
            new.type, new.shape = old.type or new.type, old.shape if old.shape is not None else new.shape
            name = old.name
            old.name = None
            new.name = name
            ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        self.graph.remove(self.node, safe=True)

    def used(self, i: int) -> bool:
        """Whether output i exists and is needed by anyone."""
        if i >= len(self.node.outputs):
            return False
        value = self.node.outputs[i]
        return bool(value.uses()) or value.is_graph_output()

    def unsupported(self, reason: str) -> UnsupportedError:
        return UnsupportedError(f"{where(self.node)} (opset {self.version}): {reason}")


def known_rank(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else len(value.shape)


def known_dim(value: ir.Value | None, axis: int) -> int | None:
    if value is None or value.shape is None or not -len(value.shape) <= axis < len(value.shape):
        return None
    extent = value.shape[axis]
    return extent if isinstance(extent, int) else None


def constant_of(value: ir.Value | None) -> np.ndarray | None:
    """A small constant's value, or None."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None or tensor.size > 4096 else tensor.numpy()
