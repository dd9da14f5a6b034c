# SPDX-License-Identifier: Apache-2.0
"""The packed graph while it is built: what rules need to read values in a form and to write nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.convenience import convert_attribute

from .. import pattern
from .values import BATCH, LENGTH, ONE, Extent, Extents, Form, Packed, Position, Refused, broadcast, form_of, words

Rule = Callable[["Translation", ir.Node, list["Packed | None"]], list["Packed"]]
PREFIX = "fi.packed."
# Inputs that the packed graph may have besides the model's own, all int64: of each sequence its length, first and last
# token [S]; of each token its place in its sequence and the sequence's number [T]; of each pair its two tokens [Σ L²].
AUXILIARY = ("lengths", "first", "last", "positions", "sequence", "queries", "keys")


class Translation:
    """Walks the nodes of a graph once; `values` says what is known of each value so far."""

    def __init__(self, model: ir.Model) -> None:
        self.values: dict[ir.Value, Packed] = {}
        self.nodes: list[ir.Node] = []
        self.inputs: dict[str, ir.Value] = {}
        self.constants: dict[int, ir.Value] = {}
        self.serial = 0
        for name in AUXILIARY:
            size = {"l": "S", "f": "S", "p": "T", "s": "T", "q": "P", "k": "P"}[name[0]]
            shape = ir.Shape(["S" if name == "last" else size])
            self.inputs[PREFIX + name] = ir.Value(
                name=PREFIX + name, type=ir.TensorType(ir.DataType.INT64), shape=shape
            )

    def aux(self, name: str) -> ir.Value:
        return self.inputs[PREFIX + name]

    def fresh(self, hint: str) -> str:
        self.serial += 1
        return f"{hint.split('/pk.')[0]}/pk.{self.serial}"

    # ------------------------------------------------------------------------------------------------------- reading

    def constant_of(self, v: ir.Value) -> Packed:
        tensor = v.const_value
        if tensor is None:  # a Constant node that no pass made an initializer of
            raise Refused(f"'{v.name}' is a constant without a tensor")
        held = self.constants.get(id(tensor))
        if held is None:
            shape_ = ir.Shape(list(tensor.shape))  # type: ignore[arg-type]
            held = ir.Value(
                name=self.fresh(v.name or "c"), type=ir.TensorType(tensor.dtype), shape=shape_, const_value=tensor
            )
            self.constants[id(tensor)] = held
        shape = tuple(Extent(int(d)) for d in tensor.shape)  # type: ignore[arg-type]
        return Packed(Form.uniform, shape, held, dtype=tensor.dtype, origin=v)

    def read(self, v: ir.Value | None) -> Packed | None:
        if v is None or v.name == "":
            return None
        if pattern.is_constant(v):
            return self.constant_of(v)
        if v not in self.values:
            raise Refused(f"'{v.name}' comes from outside the graph")
        return self.values[v]

    # ------------------------------------------------------------------------------------------------------- writing

    def constant(self, array: np.ndarray, hint: str = "c") -> ir.Value:
        tensor = ir.tensor(np.ascontiguousarray(array).reshape(array.shape))
        v = ir.Value(name=self.fresh(hint), type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape))
        v.const_value = tensor
        self.constants[id(tensor)] = v
        return v

    def ints(self, *numbers: int) -> ir.Value:
        return self.constant(np.array(numbers, np.int64))

    def op(
        self, op: str, *inputs: ir.Value | None, domain: str = "", outputs: int = 1, hint: str = "", **attrs: Any
    ) -> Any:
        """A new node; its output, or the list of several."""
        node = self.write(op, inputs, [convert_attribute(k, a) for k, a in attrs.items()], domain, outputs, hint)
        return node[0] if outputs == 1 else node

    def write(
        self, op: str, inputs: Sequence[ir.Value | None], attrs: Sequence[ir.Attr], domain: str, outputs: int, hint: str
    ) -> list[ir.Value]:
        given = list(inputs)
        while given and given[-1] is None:
            given.pop()
        made = [ir.Value(name=self.fresh(hint or op)) for _ in range(outputs)]
        self.nodes.append(ir.Node(domain, op, given, list(attrs), outputs=made, name=self.fresh(hint or op)))
        return made

    def copy(self, node: ir.Node, inputs: Sequence[ir.Value | None], **changes: Any) -> list[ir.Value]:
        """The node on other inputs."""
        attrs = [convert_attribute(k, v) for k, v in changes.items()]
        attrs += [a for name, a in node.attributes.items() if name not in changes]
        made = self.write(node.op_type, inputs, attrs, node.domain, len(node.outputs), node.outputs[0].name or "")
        for new, old in zip(made, node.outputs):
            new.type = old.type
            if old.name == "":
                new.name = ""
        return made

    # ------------------------------------------------------------------------------------------------- between forms

    def at_rank(self, p: Packed, rank: int) -> Packed:
        """Leading axes of extent 1 added."""
        more = rank - len(p.shape)
        if more <= 0:
            return p
        ones = (ONE,) * more
        value = self.op("Unsqueeze", p.value, self.ints(*range(more)))
        return p.but(value=value, shape=ones + p.shape, vary=ones + p.vary)

    def swap(self, value: ir.Value, rank: int, a: int, b: int) -> ir.Value:
        perm = list(range(rank))
        perm[a], perm[b] = perm[b], perm[a]
        return value if a == b else self.op("Transpose", value, perm=perm)

    def to_token(self, p: Packed, axis: int, rank: int) -> Packed:
        """A value that every token reads as its own sequence has it: axis B spread to the tokens at `axis`."""
        if p.form is not Form.sequence:
            return p
        p = self.at_rank(p, rank)
        b = next(i for i, e in enumerate(p.vary) if e.b)
        if p.vary[axis] not in (ONE, BATCH):
            raise Refused(f"{words(p.shape)} has its own extent along the sequence")
        value = self.swap(self.op("Gather", p.value, self.aux("sequence"), axis=b), rank, axis, b)
        vary = tuple(LENGTH if i == axis else ONE if i == b else e for i, e in enumerate(p.vary))
        return p.but(
            form=Form.token, value=value, vary=vary, shape=broadcast([p.shape, vary]) if b != axis else p.shape
        )

    def to_pair(self, p: Packed, axes: Sequence[int], rank: int) -> Packed:
        query, key = axes
        p = self.to_token(p, key, rank)
        if p.form is not Form.token:
            return p
        p = self.at_rank(p, rank)
        (axis,) = p.length_axes()
        value = self.op("Gather", p.value, self.aux("queries" if axis == query else "keys"), axis=axis)
        return p.but(form=Form.pair, value=self.swap(value, rank, query, key) if axis == query else value)

    def common(self, operands: Sequence[Packed | None]) -> tuple[Form, Extents, Extents, list[ir.Value | None]]:
        """Operands that broadcast together: the form, shape and vary of what comes out, and the operands in that form."""
        given = [p for p in operands if p is not None]
        for p in given:
            if p.form in (Form.dims, Form.ghost):
                raise Refused("computes with the length of the sequence")
        shape, vary = broadcast([p.shape for p in given]), broadcast([p.vary for p in given])
        form, rank = form_of(vary), len(vary)
        axes = [i for i, e in enumerate(vary) if e.l]

        def convert(p: Packed | None) -> ir.Value | None:
            if p is None:
                return None
            if form is Form.token:
                p = self.to_token(p, axes[0], rank)
            elif form is Form.pair:
                p = self.to_pair(p, axes, rank)
            return p.value

        return form, shape, vary, [convert(p) for p in operands]

    def densify(self, p: Packed) -> Packed:
        """The value with an element for every index of its shape."""
        if p.form in (Form.dims, Form.ghost):
            raise Refused("computes with the length of the sequence")
        if p.dense:
            return p
        form = form_of(p.shape)
        rank = len(p.shape)
        if form is Form.pair:
            raise Refused(f"{words(p.shape)} is needed for every pair of tokens")
        lengths = [i for i, e in enumerate(p.shape) if e.l]
        if form is Form.token:
            p = self.to_token(p, lengths[0], rank)
        target: list[ir.Value] = []
        for i, e in enumerate(p.shape):
            if e.l and not p.vary[i].l:
                target.append(self.op("Shape", self.aux("positions")))
            elif form is Form.sequence and e.b:
                target.append(self.op("Shape", self.aux("lengths")))
            else:
                target.append(self.ints(e.c if e.fixed else 1))
        value = self.op("Expand", p.value, self.op("Concat", *target, axis=0))
        return p.but(form=form, value=value, vary=p.shape)

    def positions(self, plus: int = 0, dtype: ir.DataType = ir.DataType.INT64) -> Packed:
        value = self.aux("positions")
        if plus:
            value = self.op("Add", value, self.ints(plus))
        if dtype != ir.DataType.INT64:
            value = self.op("Cast", value, to=int(dtype))
        return Packed(Form.token, (LENGTH,), value, content=Position(plus), dtype=dtype)

    def pick(self, p: Packed, which: str, keep: bool) -> Packed:
        """One token of each sequence (its "first" or "last"); the axis goes unless `keep`."""
        (axis,) = p.length_axes()
        return self.pooled(p, axis, self.op("Gather", p.value, self.aux(which), axis=axis), keep)

    def pooled(self, p: Packed, axis: int, value: ir.Value, keep: bool) -> Packed:
        """`value` is p with one entry per sequence at `axis` instead of the tokens: moved to where the batch is."""
        b = p.batch_axis()
        if b is None or not p.shape[axis].l or p.shape[axis].b:
            raise Refused(f"{words(p.shape)} has no axis where one result per sequence could go")
        value = self.swap(value, len(p.shape), axis, b)
        shape = tuple(ONE if i == axis else e for i, e in enumerate(p.shape))
        if not keep:
            value = self.op("Squeeze", value, self.ints(axis))
            shape = shape[:axis] + shape[axis + 1 :]
        return Packed(Form.sequence, shape, value, dtype=p.dtype)


def describe(node: ir.Node) -> str:
    return f"{node.op_type} '{node.name or node.outputs[0].name}'"


Rules = Mapping[tuple[str, str], Rule]
