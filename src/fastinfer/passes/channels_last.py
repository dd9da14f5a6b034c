# SPDX-License-Identifier: Apache-2.0
"""Channels-last layout: convolutions and what surrounds them work on [N, spatial..., C]."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from . import pattern as P
from .layout import Layouts, Perm, channels_last_perm, identity, inverse, reshaped_perm
from .readers import (
    ALONG_AXIS,
    AXES_OR_AXIS,
    CONVOLUTIONS,
    LAYOUTS,
    QUANTIZATION,
    ROWWISE,
    SPATIAL,
    VIEWS,
    Readers,
    gathered_perm,
    is_elementwise,
    is_rowwise,
    relabelled,
)
from .shape_rules import attribute_or_input
from .shapes import Shapes
from .simplify_shapes import literal_shape


def channels_last(model: ir.Model) -> bool:
    """conv(x) → transpose(conv_nhwc(transpose(x))), the transposes moved along until they cancel"""
    shapes = Shapes(model)
    changed = False
    for graph in list(P.graphs(model)):
        changed |= _Mover(shapes, graph).run()
    return changed


class _Mover:
    def __init__(self, shapes: Shapes, graph: ir.Graph):
        self.s, self.graph, self.at = shapes, graph, Layouts(shapes)
        self.readers = Readers(shapes, graph, self.at)

    def run(self) -> bool:
        if not any(_is_spatial(n) for n in self.graph):
            return False
        for node in list(self.graph):
            self._visit(node)
        return self.at.finish()

    def _visit(self, node: ir.Node) -> None:
        if node.domain == P.DOMAIN:
            if node.op_type in CONVOLUTIONS:
                self._spatial(node, always=True)
            elif node.op_type == "Attention":
                self._attention(node)
            elif node.op_type in ROWWISE:
                self._rowwise(node)
            return
        if node.domain or not node.outputs or not node.inputs:
            return
        op = node.op_type
        if op in SPATIAL:
            self._spatial(node, always=False)
        elif op == "Transpose":
            self._transpose(node)
        elif is_elementwise(node):
            self._elementwise(node)
        elif op in VIEWS:
            self._view(node)
        elif op in AXES_OR_AXIS:
            self._reduce(node)
        elif op in ALONG_AXIS:
            self._along_axis(node)
        elif op == "Slice":
            self._slice(node)
        elif op == "Pad":
            self._pad(node)
        elif op in ROWWISE:
            self._rowwise(node)
        elif op == "Gather":
            self._gather(node)

    def _twin_perm(self, value: ir.Value | None) -> Perm | None:
        twin = None if value is None else self.at.twins.get(value)
        return None if twin is None else twin[1]

    # --------------------------------------------------------------------------------------------------- operators

    def _spatial(self, node: ir.Node, always: bool) -> None:
        x, rank = node.inputs[0], self.s.rank(node.inputs[0])
        if x is None or rank is None or not 3 <= rank <= 5 or not P.is_float(x) or P.attr(node, "channels_last", 0):
            return
        if len([o for o in node.outputs if o.name]) > 1 or not _plain_form(node):
            return
        perm = channels_last_perm(rank)
        if not always and self._twin_perm(x) != perm and not self.readers.wants(node.outputs[0], perm):
            return
        inputs = [self.at.permuted(x, perm, node), *node.inputs[1:]]
        if len(inputs) > 3 and node.op_type == "Conv" and inputs[3] is not None:
            inputs[3] = self.at.permuted(inputs[3], perm, node)
        attributes = {**dict(node.attributes), "channels_last": 1}
        self._become(node, inputs, attributes, perm, domain=P.DOMAIN)

    def _become(
        self, node: ir.Node, inputs: list[ir.Value | None], attributes: dict, perm: Perm, domain: str = ""
    ) -> None:
        """The node again, on permuted data; its outputs are twins of the old ones."""
        new = P.emit(node, node.op_type, inputs, attributes, domain=domain, outputs=len(node.outputs))
        for old, value in zip(node.outputs, new.outputs):
            value.name = P.fresh(old.name)
        self.at.supersede(node, [(old, value, perm) for old, value in zip(node.outputs, new.outputs)])

    def _transpose(self, node: ir.Node) -> None:
        x, out = node.inputs[0], node.outputs[0]
        rank = self.s.rank(x)
        if x is None or rank is None:
            return
        perm = tuple(P.attr(node, "perm") or range(rank)[::-1])
        back = inverse(perm)
        twin, q = self.at.twins.get(x, (x, tuple(range(rank))))
        after = tuple(back[i] for i in q)  # axis j of the twin is axis q[j] of x is axis back[q[j]] of the output
        if identity(after) and P.replace(out, twin):
            return
        self.at.supersede(node, [(out, twin, after)])

    def _elementwise(self, node: ir.Node) -> None:
        out = node.outputs[0]
        rank = self.s.rank(out)
        inputs = [v for v in node.inputs if v is not None]
        perms = [p for v in inputs if (p := self._twin_perm(v)) is not None and len(p) == rank]
        if not perms or rank is None:
            return
        full = [v for v in inputs if self.s.same(v, out)]
        perm = next((p for v in full if (p := self._twin_perm(v)) is not None), perms[0])
        if not any(self.at.is_virtual(v) and self._twin_perm(v) == perm for v in inputs):
            return
        if not self.readers.gains(inputs, [out], perm):
            return
        foreign = [v for v in full if self._twin_perm(v) != perm and not P.is_constant(v)]
        if foreign and not self.readers.wants(out, perm):
            return
        # Clip's bounds are scalars, as are scale and zero point
        parameters = 1 if node.op_type in {"Clip", *QUANTIZATION} else len(node.inputs)
        moved: list[ir.Value | None] = []
        for i, value in enumerate(node.inputs):
            new = value if value is None or i >= parameters else self.at.operand(value, perm, node)
            if new is None and value is not None:
                return
            moved.append(new)
        self._become(node, moved, dict(node.attributes), perm)

    def _view(self, node: ir.Node) -> None:
        x, out = node.inputs[0], node.outputs[0]
        if x is None or x not in self.at.twins:
            return
        source, target, (twin, perm) = self.s.dims(x), self.s.dims(out), self.at.twins[x]
        if source is None or target is None or not self.at.is_virtual(x):
            return
        after = reshaped_perm(source, target, perm)
        if after is None:
            self._view_after_move(node, x, out)
        elif identity(after) or self.readers.wants(out, after):
            self._reshape_twin(node, twin, out, after)

    def _reshape_twin(self, node: ir.Node, twin: ir.Value, out: ir.Value, perm: Perm) -> None:
        source, target = self.s.dims(twin), self.s.dims(out)
        assert source is not None and target is not None
        shape = literal_shape(source, tuple(target[i] for i in perm))
        if shape is None:
            return
        new = P.emit(node, "Reshape", [twin, P.new_constant(node, np.array(shape, np.int64))]).outputs[0]
        self.at.describe(new, out, perm)
        if identity(perm):
            P.replace(out, new)
        else:
            self.at.supersede(node, [(out, new, perm)])

    def _view_after_move(self, node: ir.Node, x: ir.Value, out: ir.Value) -> None:
        """The needed transpose is done so that the reshape ends channels-last (channel shuffle)."""
        source, target = self.s.dims(x), self.s.dims(out)
        if source is None or target is None or not 3 <= len(target) <= 5:
            return
        wanted = channels_last_perm(len(target))
        # The order of x whose reshape is channels-last: the wanted order, reshaped back.
        before = reshaped_perm(target, source, wanted)
        if before is None or not self.readers.wants(out, wanted):
            return
        self._reshape_twin(node, self.at.permuted(x, before, node), out, wanted)

    def _reduce(self, node: ir.Node) -> None:
        x, out = node.inputs[0], node.outputs[0]
        if x is None or not self.at.is_virtual(x):
            return
        twin, perm = self.at.twins[x]
        single = node.op_type in ("ArgMax", "ArgMin")
        axes = [P.attr(node, "axis", 0)] if single else attribute_or_input(node, "axes", 1)
        if not axes:
            return
        plain = [a % len(perm) for a in axes]
        moved = sorted(perm.index(a) for a in plain)
        keep = P.attr(node, "keepdims", 1)
        attributes = {k: v for k, v in node.attributes.items() if k not in ("axes", "axis")}
        inputs: list[ir.Value | None] = [twin]
        if single:
            attributes["axis"] = ir.AttrInt64("axis", moved[0])
        else:
            inputs.append(P.new_constant(node, np.array(moved, np.int64)))
        after = perm
        if not keep:
            rest = [a for a in perm if a not in plain]
            ranks = sorted(rest)
            after = tuple(ranks.index(a) for a in rest)
        new = P.emit(node, node.op_type, inputs, attributes).outputs[0]
        self.at.describe(new, out, after)
        if identity(after):
            P.replace(out, new)
        else:
            self.at.supersede(node, [(out, new, after)])

    def _along_axis(self, node: ir.Node) -> None:
        data = [v for v in (node.inputs if node.op_type == "Concat" else node.inputs[:1]) if v is not None]
        perm = next((p for v in data if self.at.is_virtual(v) and (p := self._twin_perm(v)) is not None), None)
        if perm is None or not self.readers.gains(data, list(node.outputs), perm):
            return
        foreign = [v for v in data if self._twin_perm(v) != perm]
        if foreign and not any(self.readers.wants(o, perm) for o in node.outputs):
            return
        moved = [self._relaid(v, perm, node) for v in data]
        default = 0 if node.op_type == "Split" else -1
        axis = perm.index(P.attr(node, "axis", default) % len(perm))
        attributes = {**dict(node.attributes), "axis": ir.AttrInt64("axis", axis)}
        self._become(node, [*moved, *node.inputs[len(data) :]], attributes, perm)

    def _relaid(self, value: ir.Value, perm: Perm, node: ir.Node) -> ir.Value:
        new = self.at.operand(value, perm, node) if P.is_constant(value) else self.at.permuted(value, perm, node)
        assert new is not None
        return new

    def _slice(self, node: ir.Node) -> None:
        perm = self._moved_perm(node)
        rank = 0 if perm is None else len(perm)
        starts = self.s.static(P.get(node, 1))
        axes = P.ints(P.get(node, 3)) if P.get(node, 3) is not None else list(range(starts[0])) if starts else None
        if perm is None or axes is None:
            return
        moved = P.new_constant(node, np.array([perm.index(a % rank) for a in axes], np.int64))
        twin = self.at.twins[node.inputs[0]][0]  # type: ignore[index]
        self._become(node, [twin, node.inputs[1], node.inputs[2], moved, P.get(node, 4)], dict(node.attributes), perm)

    def _pad(self, node: ir.Node) -> None:
        perm = self._moved_perm(node)
        if perm is None:
            return
        rank = len(perm)
        axes = P.ints(P.get(node, 3)) if P.get(node, 3) is not None else list(range(rank))
        if axes is None:
            return
        moved = P.new_constant(node, np.array([perm.index(a % rank) for a in axes], np.int64))
        twin = self.at.twins[node.inputs[0]][0]  # type: ignore[index]
        self._become(node, [twin, node.inputs[1], P.get(node, 2), moved], dict(node.attributes), perm)

    def _moved_perm(self, node: ir.Node) -> Perm | None:
        """The order to compute a one-input operator in, if that gains."""
        x = node.inputs[0]
        perm = self._twin_perm(x)
        if (
            x is None
            or perm is None
            or not self.at.is_virtual(x)
            or not self.readers.gains([x], list(node.outputs), perm)
        ):
            return None
        return perm

    def _rowwise(self, node: ir.Node) -> None:
        """matmul(transpose(x), w) → transpose(matmul(x, w)), if the last axis stays the last"""
        which = [i for i in ROWWISE[node.op_type] if P.get(node, i) is not None]
        data = [v for i in which if (v := node.inputs[i]) is not None]
        perm = next((p for v in data if self.at.is_virtual(v) and (p := self._twin_perm(v)) is not None), None)
        if perm is None or perm[-1] != len(perm) - 1 or not is_rowwise(self.s, node):
            return
        if any(self.s.rank(v) != len(perm) for v in data) or not self.readers.gains(data, list(node.outputs), perm):
            return
        if any(self._twin_perm(v) != perm for v in data) and not self.readers.wants_all(node, perm):
            return
        moved = [
            self.at.permuted(v, perm, node) if i in which and v is not None else v for i, v in enumerate(node.inputs)
        ]
        self._become(node, moved, dict(node.attributes), perm, domain=node.domain)

    def _gather(self, node: ir.Node) -> None:
        x, out = node.inputs[0], node.outputs[0]
        if x is None or not self.at.is_virtual(x):
            return
        twin, perm = self.at.twins[x]
        after = gathered_perm(self.s, node, perm)
        if after is None or not (identity(after) or self.readers.gains([x], [out], after)):
            return
        axis = perm.index(P.attr(node, "axis", 0) % len(perm))
        new = P.emit(node, "Gather", [twin, node.inputs[1]], {"axis": axis}).outputs[0]
        self.at.describe(new, out, after)
        if identity(after):
            P.replace(out, new)
        else:
            self.at.supersede(node, [(out, new, after)])

    def _attention(self, node: ir.Node) -> None:
        """attention(transpose(q), ...) → attention(q, ..., q_layout)"""
        for i, name in enumerate(LAYOUTS):
            value = node.inputs[i]
            if value is None or not self.at.is_virtual(value):
                continue
            twin, perm = self.at.twins[value]
            layout = relabelled(node, i, perm)
            if layout is not None:
                node.replace_input_with(i, twin)
                node.attributes[name] = ir.AttrString(name, layout)
        swap = (0, 2, 1, 3)
        if P.attr(node, "o_layout", "BNSH") == "BNSH" and self.readers.wants(node.outputs[0], swap):
            attributes = {**dict(node.attributes), "o_layout": ir.AttrString("o_layout", "BSNH")}
            self._become(node, list(node.inputs), attributes, swap, domain=P.DOMAIN)


def _is_spatial(node: ir.Node) -> bool:
    return (node.domain == P.DOMAIN and node.op_type in CONVOLUTIONS | {"Attention"}) or (
        not node.domain and node.op_type in SPATIAL
    )


def _plain_form(node: ir.Node) -> bool:
    """Forms that the channels-last operators do not have."""
    if node.op_type == "Resize":
        return P.attr(node, "coordinate_transformation_mode", "half_pixel") != "tf_crop_and_resize"
    return True
