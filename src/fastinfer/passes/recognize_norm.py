# SPDX-License-Identifier: Apache-2.0
"""Layer, RMS and instance normalisation written out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from . import pattern as P
from .recognize_softmax import reduced_axes
from .shapes import Shapes


def recognize_norm(model: ir.Model) -> bool:
    """(x − mean(x)) / √(var(x) + ε) · w + b → layer_norm(x, w, b); x / √(mean(x²) + ε) · w → rms_norm(x, w)"""
    shapes = Shapes(model)
    return P.rewrite(model, lambda node: _rule(shapes, node))


def _rule(s: Shapes, node: ir.Node) -> bool:
    if not P.is_op(node, "Mul", "Div") or not P.is_float(node.outputs[0]):
        return False
    for x, root in _over_root(node):
        found = _variance(root)
        if found is None:
            continue
        squared, axes, epsilon = found
        rank = s.rank(x)
        if not rank:
            continue
        axes = sorted(a % rank for a in axes)
        centred = P.producer(x, "Sub")
        if squared is x and centred is not None and _is_mean(s, centred, axes, rank):
            return _layer_norm(s, node, centred.inputs[0], axes, epsilon)  # type: ignore[arg-type]
        if centred is not None and _same_difference(squared, centred) and _is_mean(s, centred, axes, rank):
            return _layer_norm(s, node, centred.inputs[0], axes, epsilon)  # type: ignore[arg-type]
        if squared is x and axes == [rank - 1]:
            return _rms_norm(s, node, x, epsilon)
    return False


def _over_root(node: ir.Node) -> list[tuple[ir.Value, ir.Node]]:
    """(x, Sqrt node) of x/√v, x·(1/√v), x·v^(−½)"""
    a, b = node.inputs
    if a is None or b is None:
        return []
    if node.op_type == "Div":
        root = P.producer(b, "Sqrt")
        return [(a, root)] if root is not None else []
    out = []
    for x, inverse in P.commuted(node):
        root = None
        reciprocal = P.producer(inverse, "Reciprocal")
        division = P.producer(inverse, "Div")
        power = P.producer(inverse, "Pow")
        if reciprocal is not None:
            root = P.producer(reciprocal.inputs[0], "Sqrt")
        elif division is not None and P.is_scalar(division.inputs[0], 1.0):
            root = P.producer(division.inputs[1], "Sqrt")
        elif power is not None and P.is_scalar(power.inputs[1], -0.5):
            root = power
        if root is not None:
            out.append((x, root))
    return out


def _variance(root: ir.Node) -> tuple[ir.Value, list[int], float] | None:
    """(c, axes, ε) of √(mean(c²) + ε)"""
    shifted = P.with_scalar(P.producer(root.inputs[0], "Add"), "Add")
    if shifted is None or not 0.0 <= shifted[1] <= 0.1:
        return None
    mean = P.producer(shifted[0], "ReduceMean")
    axes = reduced_axes(mean) if mean is not None else None
    if mean is None or not axes:
        return None
    square = P.producer(mean.inputs[0], "Pow", "Mul")
    if square is None or square.inputs[0] is None:
        return None
    squared = square.inputs[0]
    if square.op_type == "Pow":
        return (squared, axes, shifted[1]) if P.is_scalar(square.inputs[1], 2.0) else None
    return (squared, axes, shifted[1]) if square.inputs[1] is squared else None


def _is_mean(s: Shapes, centred: ir.Node, axes: list[int], rank: int) -> bool:
    mean = P.producer(centred.inputs[1], "ReduceMean")
    found = reduced_axes(mean) if mean is not None else None
    return (
        mean is not None
        and found is not None
        and mean.inputs[0] is centred.inputs[0]
        and (sorted(a % rank for a in found) == axes)
    )


def _same_difference(value: ir.Value, centred: ir.Node) -> bool:
    other = P.producer(value, "Sub")
    return other is not None and list(other.inputs) == list(centred.inputs)


# --------------------------------------------------------------------------------------------------------- results


def _weight(s: Shapes, value: ir.Value | None, extents: Sequence[int], axis: int, rank: int) -> np.ndarray | None:
    """A constant that varies only along the normalised axes, laid out over them."""
    array = P.constant(value)
    if array is None or array.ndim > rank or array.dtype != np.float32:
        return None
    array = array.reshape((1,) * (rank - array.ndim) + array.shape)
    wanted = (1,) * axis + tuple(extents) + (1,) * (rank - axis - len(extents))
    try:
        return np.broadcast_to(array, wanted).reshape(tuple(extents)).copy() if _fits(array.shape, wanted) else None
    except ValueError:
        return None


def _fits(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    return all(a in (1, b) for a, b in zip(shape, wanted))


def _absorb(
    s: Shapes, value: ir.Value, op_type: str, extents: Sequence[int], axis: int
) -> tuple[ir.Value, np.ndarray] | None:
    """The only reader op(value, w) with a fitting constant w."""
    reader = P.only_use(value)
    rank = s.rank(value)
    if reader is None or not P.is_op(reader, op_type) or rank is None or s.rank(reader.outputs[0]) != rank:
        return None
    for x, w in P.commuted(reader):
        weight = _weight(s, w, extents, axis, rank) if x is value else None
        if weight is not None:
            return reader.outputs[0], weight
    return None


def _layer_norm(s: Shapes, node: ir.Node, x: ir.Value, axes: list[int], epsilon: float) -> bool:
    dims = s.dims(x)
    assert dims is not None
    rank, out = len(dims), node.outputs[0]
    extents = [d for d in (dims[a] for a in axes) if isinstance(d, int)]
    if axes == list(range(2, rank)) and rank >= 4 and isinstance(dims[1], int):
        return _instance_norm(s, node, x, int(dims[1]), epsilon)
    over_channels = axes == [1] and rank in (3, 4)
    if len(extents) != len(axes) or not (over_channels or axes == list(range(axes[0], rank))):
        return False
    out, weight, bias = _scale_and_bias(s, out, extents, axes[0])
    anchor = out.producer()
    assert anchor is not None
    perm = [0, *range(2, rank), 1] if over_channels else None
    if perm is not None:
        x = P.emit(anchor, "Transpose", [x], {"perm": perm}).outputs[0]
        _describe(s, x, [dims[i] for i in perm])
    scale = P.new_constant(anchor, np.ones(extents, np.float32) if weight is None else weight)
    shift = None if bias is None else P.new_constant(anchor, bias)
    attributes = {"axis": -1 if over_channels else axes[0] - rank, "epsilon": epsilon}
    y = P.emit(anchor, "LayerNormalization", [x, scale, shift], attributes, like=None if perm else out).outputs[0]
    if perm is not None:
        _describe(s, y, [dims[i] for i in perm])
        y = P.emit(anchor, "Transpose", [y], {"perm": [0, rank - 1, *range(1, rank - 1)]}, like=out).outputs[0]
    s.alias(y, out)
    return P.replace(out, y)


def _describe(s: Shapes, value: ir.Value, dims: Sequence[object]) -> None:
    value.type = ir.TensorType(ir.DataType.FLOAT)
    value.shape = ir.Shape([d if isinstance(d, int) else None for d in dims])
    s.put(value, tuple(dims))  # type: ignore[arg-type]


def _scale_and_bias(
    s: Shapes, out: ir.Value, extents: Sequence[int], axis: int
) -> tuple[ir.Value, np.ndarray | None, np.ndarray | None]:
    """Follows norm → · w → + b as far as it goes."""
    weight = bias = None
    found = _absorb(s, out, "Mul", extents, axis)
    if found is not None:
        out, weight = found
    found = _absorb(s, out, "Add", extents, axis)
    if found is not None:
        out, bias = found
    return out, weight, bias


def _instance_norm(s: Shapes, node: ir.Node, x: ir.Value, channels: int, epsilon: float) -> bool:
    out, weight, bias = _scale_and_bias(s, node.outputs[0], [channels], 1)
    anchor = out.producer()
    assert anchor is not None
    scale = P.new_constant(anchor, np.ones(channels, np.float32) if weight is None else weight)
    shift = P.new_constant(anchor, np.zeros(channels, np.float32) if bias is None else bias)
    y = P.emit(anchor, "InstanceNormalization", [x, scale, shift], {"epsilon": epsilon}, like=out).outputs[0]
    s.alias(y, out)
    return P.replace(out, y)


def _rms_norm(s: Shapes, node: ir.Node, x: ir.Value, epsilon: float) -> bool:
    dims = s.dims(x)
    assert dims is not None
    if not isinstance(dims[-1], int):
        return False
    out = node.outputs[0]
    found = _absorb(s, out, "Mul", [dims[-1]], len(dims) - 1)
    weight = np.ones(dims[-1], np.float32)
    if found is not None:
        out, weight = found
    anchor = out.producer()
    assert anchor is not None
    scale = P.new_constant(anchor, weight)
    y = P.emit(anchor, "RMSNormalization", [x, scale], {"axis": -1, "epsilon": epsilon}, like=out).outputs[0]
    s.alias(y, out)
    return P.replace(out, y)
