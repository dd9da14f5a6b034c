# SPDX-License-Identifier: Apache-2.0
"""What is known of every value: extents (`dims.Dim`), element type, and the contents of small integer tensors.

One forward sweep in Python over the graph and its subgraphs; weights are never copied. Operators without a rule in
`shape_rules.py` go through ONNX's own inference, one node at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx
import onnx_ir as ir

from . import dims as D
from . import pattern as P
from . import shape_contents, shape_rules, shape_rules_data
from .dims import Dim, Dims

RULES = {**shape_rules.RULES, **shape_rules_data.RULES}


class Shapes:
    """Knowledge about the values of one model, as of the moment it was made; passes add what they create."""

    def __init__(self, model: ir.Model):
        self.model = model
        self._dims: dict[ir.Value, Dims | None] = {}
        self._content: dict[ir.Value, list[Dim]] = {}
        self._unknown = 0  # symbols made so far for extents that nobody knows
        self._enter(model.graph)
        self._sweep(model.graph)

    # ---------------------------------------------------------------------------------------------------- asking

    def dims(self, value: ir.Value | None) -> Dims | None:
        """The extents, or None when not even the rank is known."""
        if value is None:
            return None
        if value not in self._dims:
            self._dims[value] = self._of_constant(value) if value.const_value is not None else None
        return self._dims[value]

    def rank(self, value: ir.Value | None) -> int | None:
        dims = self.dims(value)
        return None if dims is None else len(dims)

    def static(self, value: ir.Value | None) -> tuple[int, ...] | None:
        """The extents when all are numbers."""
        dims = self.dims(value)
        if dims is None or not all(isinstance(d, int) for d in dims):
            return None
        return dims  # type: ignore[return-value]

    def content(self, value: ir.Value | None) -> list[Dim] | None:
        """The elements of a small integer (or bool) tensor of rank ≤ 1, each a Dim."""
        if value is None:
            return None
        if value not in self._content and value.const_value is not None:
            self._constant_content(value)
        return self._content.get(value)

    def same(self, a: ir.Value | None, b: ir.Value | None) -> bool:
        """Provably equal shapes."""
        x, y = self.dims(a), self.dims(b)
        return x is not None and x == y

    def elements(self, value: ir.Value | None) -> Dim | None:
        dims = self.dims(value)
        return None if dims is None else D.product(dims)

    def broadcasts_to(self, value: ir.Value | None, target: Dims) -> bool:
        """Provably numpy-broadcastable to `target` without enlarging it."""
        dims = self.dims(value)
        if dims is None or len(dims) > len(target):
            return False
        return all(d == t or D.is_one(d) for d, t in zip(reversed(dims), reversed(target)))

    # --------------------------------------------------------------------------------------------------- telling

    def put(self, value: ir.Value, dims: Iterable[Dim] | None) -> None:
        self._dims[value] = None if dims is None else tuple(dims)

    def alias(self, value: ir.Value, like: ir.Value) -> None:
        self._dims[value] = self.dims(like)

    def fresh(self) -> Dim:
        self._unknown += 1
        return D.symbol(f"?{self._unknown}")

    def broadcast(self, shapes: Sequence[Dims | None]) -> Dims | None:
        """The common shape; an extent that cannot be said is a new symbol."""
        known = [s for s in shapes if s is not None]
        if len(known) != len(shapes):
            return None
        out: list[Dim] = []
        for i in range(max((len(s) for s in known), default=0), 0, -1):
            at = [s[-i] for s in known if len(s) >= i]
            extent: Dim | None = 1
            for d in at:
                extent = None if extent is None else D.broadcast_dim(extent, d)
            # Two unequal symbols: whatever is a plain number above 1 decides, else nobody knows.
            fixed = next((d for d in at if isinstance(d, int) and d > 1), None)
            out.append(fixed if fixed is not None else (self.fresh() if extent is None else extent))
        return tuple(out)

    # -------------------------------------------------------------------------------------------------- sweeping

    def _of_constant(self, value: ir.Value) -> Dims:
        assert value.const_value is not None
        return tuple(int(d) for d in value.const_value.shape)  # type: ignore[arg-type]

    def _constant_content(self, value: ir.Value) -> None:
        tensor = value.const_value
        assert tensor is not None
        if (
            tensor.size <= shape_rules.MAX_CONTENT
            and len(tensor.shape) <= 1
            and tensor.dtype in _INTEGERS
            and P.is_constant(value)
        ):
            self._content[value] = [int(i) for i in tensor.numpy().reshape(-1)]

    def declared(self, value: ir.Value) -> Dims | None:
        """The extents that the model itself states."""
        if value.shape is None:
            return None
        return tuple(d if isinstance(d, int) else D.symbol(d.value) if d.value else self.fresh() for d in value.shape)

    def _enter(self, graph: ir.Graph) -> None:
        for value in graph.inputs:
            self._dims[value] = self.declared(value)

    def _sweep(self, graph: ir.Graph) -> None:
        for node in graph:
            for attribute in node.attributes.values():
                for nested in P.nested_graphs(attribute):
                    if node.op_type != "If":
                        self._enter_body(nested)
                    self._sweep(nested)
            self.infer(node)

    def _enter_body(self, graph: ir.Graph) -> None:
        # Extents of loop-carried values may change from iteration to iteration: only the rank can be relied on.
        for value in graph.inputs:
            self._dims[value] = None if value.shape is None else tuple(self.fresh() for _ in value.shape)

    def infer(self, node: ir.Node) -> None:
        """Fills in the outputs of `node` from its inputs."""
        if not node.outputs:
            return
        rule = RULES.get((node.domain, node.op_type))
        found: Sequence[Dims | None] | None = None
        before = self._unknown
        try:
            found = rule(self, node) if rule is not None else self._onnx(node)
        except (ValueError, IndexError, TypeError, ZeroDivisionError):  # an invalid node: nothing is known of it
            found = None
        for i, value in enumerate(node.outputs):
            dims = found[i] if found is not None and i < len(found) else None
            self._dims[value] = self._merge(dims, value, before)
        shape_rules.set_dtypes(node)
        shape_contents.set_content(self, node)

    def _merge(self, dims: Dims | None, value: ir.Value, before: int) -> Dims | None:
        # Where the rule does not know, what the model states (an exporter's value_info) is taken.
        if dims is not None and not any(_is_unknown(d, before) for d in dims):
            return dims
        declared = self.declared(value)
        if dims is None or declared is None or len(dims) != len(declared):
            return declared if dims is None else dims
        return tuple(b if _is_unknown(a, before) and not _is_unknown(b, 0) else a for a, b in zip(dims, declared))

    def _onnx(self, node: ir.Node) -> Sequence[Dims | None] | None:
        if node.domain or not onnx.defs.has(node.op_type) or any(P.nested_graphs(a) for a in node.attributes.values()):
            return None
        names: dict[str, Dim] = {}
        types = {}
        for value in node.inputs:
            if value is None:
                continue
            if value.dtype is None or not isinstance(value.type, ir.TensorType):
                return None
            types[value.name] = onnx.helper.make_tensor_type_proto(int(value.dtype), self._params(value, names))
        data = {
            v.name: ir.to_proto(v.const_value)  # type: ignore[arg-type]
            for v in node.inputs
            if v is not None and P.is_constant(v) and v.const_value.size <= shape_rules.MAX_CONTENT  # type: ignore[union-attr]
        }
        try:
            out = onnx.shape_inference.infer_node_outputs(
                onnx.defs.get_schema(node.op_type, _opset(self.model)),
                ir.to_proto(node),
                types,
                data,
                opset_imports=[onnx.helper.make_opsetid("", _opset(self.model))],
            )
        except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError, onnx.defs.SchemaError):
            return None
        return [self._from_proto(out.get(v.name or ""), v, names) for v in node.outputs]

    def _params(self, value: ir.Value, names: dict[str, Dim]) -> list[int | str] | None:
        dims = self.dims(value)
        if dims is None:
            return None
        for d in dims:
            names[str(d)] = d
        return [d if isinstance(d, int) else str(d) for d in dims]

    def _from_proto(self, proto: onnx.TypeProto | None, value: ir.Value, names: dict[str, Dim]) -> Dims | None:
        if proto is None or not proto.HasField("tensor_type"):
            return None
        if value.type is None and proto.tensor_type.elem_type:
            value.type = ir.TensorType(ir.DataType(proto.tensor_type.elem_type))
        if not proto.tensor_type.HasField("shape"):
            return None
        dims: list[Dim] = []
        for d in proto.tensor_type.shape.dim:
            dims.append(d.dim_value if d.HasField("dim_value") else names.get(d.dim_param) or self.fresh())
        return tuple(dims)


_INTEGERS = {ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL, ir.DataType.UINT8, ir.DataType.INT8}


def _is_unknown(d: Dim, since: int) -> bool:
    """Made by Shapes.fresh after the first `since`."""
    if isinstance(d, int) or len(d.terms) != 1 or len(d.terms[0][0]) != 1:
        return False
    name = d.terms[0][0][0]
    return name.startswith("?") and name[1:].isdigit() and int(name[1:]) > since


def _opset(model: ir.Model) -> int:
    return model.graph.opset_imports.get("", 26)
