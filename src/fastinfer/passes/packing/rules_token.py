# SPDX-License-Identifier: Apache-2.0
"""Rules for operators that compute: token by token, or over the tokens of one sequence."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from .. import pattern
from .rules_shape import arithmetic, axes_input, axis_of, fixed_ints
from .translate import Rule, Translation
from .values import BATCH, ONE, BatchIndex, Extent, Form, Packed, Position, Refused, broadcast, form_of, words

ELEMENTWISE = """Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast Ceil
    Celu Clip Cos Cosh Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish Identity IsInf IsNaN
    LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or Pow PRelu Reciprocal Relu Round Selu Shrink Sigmoid
    Sign Sin Sinh Softplus Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Where Xor""".split()
WIDE = (ir.DataType.INT64, ir.DataType.INT32)
REDUCED = (ir.DataType.FLOAT, *WIDE)


def elementwise(t: Translation, node: ir.Node, x: list) -> list[Packed]:
    if node.op_type in ("Add", "Sub", "Mul", "Div") and any(p.form is Form.dims for p in x):
        known = arithmetic(t, node, x)
        if known is not None:
            return [known]
    if node.op_type in ("Cast", "Identity") and x[0].form in (Form.dims, Form.ghost):
        if node.op_type == "Cast" and pattern.attr(node, "to") not in WIDE:
            raise Refused("computes with the length of the sequence")
        return [x[0]]
    if (true := _always(t, node, x)) is not None:
        return [true]
    if any(p is not None and p.form is Form.ghost for p in x):  # read for its shape at most
        return [Packed(Form.ghost, broadcast([p.shape for p in x if p is not None])) for _ in node.outputs]
    form, shape, vary, values = t.common(x)
    made = t.copy(node, values)
    keeps = node.op_type == "Identity" or (node.op_type == "Cast" and pattern.attr(node, "to") in WIDE)
    content = x[0].content if keeps else None
    return [Packed(form, shape, v, vary, content, dtype=o.dtype) for v, o in zip(made, node.outputs)]


def _always(t: Translation, node: ir.Node, x: list) -> Packed | None:
    """place >= number, true for every token because places count from 0: torch's exporter writes it into masks."""
    if not pattern.is_op(node, "GreaterOrEqual") or not isinstance(x[0].content, Position | BatchIndex):
        return None
    bound = pattern.scalar(x[1].origin)
    if bound is None or bound > getattr(x[0].content, "plus", 0):
        return None
    rank = max(len(x[0].shape), len(x[1].shape))
    shape = broadcast([x[0].shape, x[1].shape])
    import numpy as np

    return Packed(Form.uniform, shape, t.constant(np.ones([1] * rank, np.bool_)), (ONE,) * rank, dtype=ir.DataType.BOOL)


def pointwise(t: Translation, node: ir.Node, x: list) -> list[Packed]:
    form, shape, vary, values = t.common(x)
    return [Packed(form, shape, v, vary, dtype=o.dtype) for v, o in zip(t.copy(node, values), node.outputs)]


# --------------------------------------------------------------------------------------------- along the last axes


def _need_uniform(node: ir.Node, operands: list, what: str) -> None:
    for p in operands:
        if p is not None and not (p.form is Form.uniform and p.dense):
            raise Refused(f"{what} depends on the inputs")


def _untouched(p: Packed, axes: range | list[int], verb: str) -> None:
    for axis in axes:
        if not p.shape[axis].fixed:
            raise Refused(f"{verb} along the {'sequence' if p.shape[axis].l else 'batch'}")


def matmul(t: Translation, node: ir.Node, x: list) -> list[Packed]:
    a, w = t.densify(x[0]), x[1]
    _need_uniform(node, [w, *x[2:3]], "its second matrix or its bias")
    if len(w.shape) != 2 or len(a.shape) < 2:
        raise Refused(f"multiplies {words(a.shape)} by {words(w.shape)}")
    if pattern.attr(node, "transA", 0):
        raise Refused("reads its first matrix transposed")
    _untouched(a, [-1], "multiplies")
    out = (*a.shape[:-1], w.shape[0 if pattern.attr(node, "transB", 0) else 1])
    values = [a.value, w.value, *(None if p is None else p.value for p in x[2:3])]
    if len(x) > 3 and x[3] is not None:
        r = t.densify(x[3])
        if r.form is not a.form or r.shape != out:
            raise Refused(f"adds {words(r.shape)} to {words(out)}")
        values += [None] * (3 - len(values)) + [r.value]
    (value,) = t.copy(node, values)
    return [Packed(a.form, out, value, dtype=node.outputs[0].dtype)]


def quantized_matmul(t: Translation, node: ir.Node, x: list) -> list[Packed]:
    """MatMulNBits, MatMulInteger, QLinearMatMul: all but the first operand are the same for every token."""
    a = t.densify(x[0])
    _need_uniform(node, x[1:], "one of its parameters")
    _untouched(a, [-1], "multiplies")
    if node.op_type == "MatMulNBits":
        width = Extent(int(pattern.attr(node, "N")))
    else:
        w = x[1] if node.op_type == "MatMulInteger" else x[3]
        if len(w.shape) != 2:
            raise Refused(f"multiplies {words(a.shape)} by {words(w.shape)}")
        width = w.shape[1]
    for p in x[2:] if node.op_type == "QLinearMatMul" else []:
        if p is not None and p is not x[3] and len(p.shape) > 1:
            raise Refused("has parameters per row")
    (value,) = t.copy(node, [a.value, *(None if p is None else p.value for p in x[1:])])
    return [Packed(a.form, (*a.shape[:-1], width), value, dtype=node.outputs[0].dtype)]


def quantize(t: Translation, node: ir.Node, x: list) -> list[Packed]:
    p = t.densify(x[0])
    _need_uniform(node, x[1:], "one of its parameters")
    if len(x[1].shape) > 0 and x[1].shape != (ONE,):
        _untouched(p, [axis_of(pattern.attr(node, "axis", 1), len(p.shape))], "has parameters")
    if pattern.attr(node, "block_size", 0):
        raise Refused("has parameters per block")
    (value,) = t.copy(node, [p.value, *(None if q is None else q.value for q in x[1:])])
    return [p.but(value=value, dtype=node.outputs[0].dtype, content=None, origin=None)]


def norm(t: Translation, node: ir.Node, x: list) -> list[Packed]:
    p = t.densify(x[0])
    _need_uniform(node, x[1:], "its scale or bias")
    first = axis_of(pattern.attr(node, "axis", -1), len(p.shape))
    _untouched(p, range(first, len(p.shape)), "normalizes")
    if any(o.uses() or o.is_graph_output() for o in node.outputs[1:]):
        raise Refused("gives its statistics away")
    values = t.copy(node, [p.value, *(None if q is None else q.value for q in x[1:])])
    return [p.but(value=v, content=None, origin=None) for v in values]


def skip_norm(t: Translation, node: ir.Node, x: list) -> list[Packed]:
    _need_uniform(node, x[2:], "its scale or bias")
    form, shape, vary, values = t.common(x[:2])
    if vary != shape or x[0].shape != shape:
        x = [t.densify(x[0]), *x[1:]]
        form, shape, vary, values = t.common(x[:2])
    _untouched(Packed(form, shape), [-1], "normalizes")
    made = t.copy(node, [*values, *(None if q is None else q.value for q in x[2:])])
    return [Packed(form, shape, v, dtype=ir.DataType.FLOAT) for v in made]


def softmax(t: Translation, node: ir.Node, x: list) -> list[Packed]:
    p = t.densify(x[0])
    axis = axis_of(pattern.attr(node, "axis", -1), len(p.shape))
    _untouched(p, [axis], "runs")
    (value,) = t.copy(node, [p.value], axis=axis)
    return [p.but(value=value, content=None, origin=None)]


# ------------------------------------------------------------------------------------------- over a sequence's tokens

REDUCTIONS = {"ReduceSum": "sum", "ReduceMean": "mean", "ReduceMax": "max", "ReduceMin": "min"}


def reduce(t: Translation, node: ir.Node, x: list) -> list[Packed]:
    p = t.densify(x[0])
    rank = len(p.shape)
    axes = axes_input(node, x, rank)
    if axes is None:
        axes = [] if pattern.attr(node, "noop_with_empty_axes", 0) else list(range(rank))
    keep = bool(pattern.attr(node, "keepdims", 1))
    if any(p.shape[a].l for a in axes):
        return [_reduce_tokens(t, node, p, axes, keep)]
    _untouched(p, axes, "reduces")
    values = [p.value, *([t.ints(*axes)] if len(x) > 1 and x[1] is not None else [])]
    (value,) = t.copy(node, values)
    shape = tuple(ONE if i in axes else e for i, e in enumerate(p.shape) if keep or i not in axes)
    return [p.but(value=value, shape=shape, content=None, origin=None)]


def _reduce_tokens(t: Translation, node: ir.Node, p: Packed, axes: list[int], keep: bool) -> Packed:
    if p.form is not Form.token or len(axes) != 1 or node.op_type not in REDUCTIONS:
        raise Refused(
            f"reduces axes {axes} of {words(p.shape)}; along the sequence only sum, mean, max and min of one axis"
        )
    if p.dtype not in REDUCED:
        raise Refused(f"reduces {p.dtype} along the sequence")
    value = t.op("PackedReduce", p.value, t.aux("lengths"), domain=pattern.DOMAIN, axis=axes[0],
                 reduction=REDUCTIONS[node.op_type], hint=node.outputs[0].name or "")  # fmt: skip
    return t.pooled(p, axes[0], value, keep)


def cumsum(t: Translation, node: ir.Node, x: list) -> list[Packed]:
    """Sums restart at each sequence: from the running sum of all is taken what it was at the sequence's first token."""
    p = t.densify(x[0])
    axis = axis_of(fixed_ints(x[1], "the axis")[0], len(p.shape))
    if not p.shape[axis].l:
        _untouched(p, [axis], "sums up")
        return [p.but(value=t.copy(node, [p.value, x[1].value])[0], content=None, origin=None)]
    if p.form is not Form.token or p.dtype not in WIDE or pattern.attr(node, "reverse", 0):
        raise Refused(f"sums up {p.dtype} along the sequence; only integers from its start on")
    total = t.op("CumSum", p.value, t.ints(axis), exclusive=int(pattern.attr(node, "exclusive", 0)))
    before = t.op("CumSum", p.value, t.ints(axis), exclusive=1)
    start = t.op("Gather", t.op("Gather", before, t.aux("first"), axis=axis), t.aux("sequence"), axis=axis)
    return [p.but(value=t.op("Sub", total, start), content=None, origin=None)]


ATTENTION = {"q_layout", "k_layout", "v_layout", "o_layout", "scale", "causal", "softcap", "zero_empty", "precision",
             "output_dtype"}  # fmt: skip
# Where each layout has sequence and heads.
AXES = {"BNSH": (2, 1), "BSNH": (1, 2), "BNHS": (3, 1)}


def attention(t: Translation, node: ir.Node, x: list) -> list[Packed]:
    unknown = set(node.attributes) - ATTENTION
    if unknown or len(node.outputs) != 1 or len(x) > 4:
        raise Refused(f"has a form of attention without a packed one ({', '.join(sorted(unknown)) or 'its operands'})")
    layouts = [pattern.attr(node, f"{name}_layout", "BNSH") for name in "qkvo"]
    q, k, v = (t.densify(p) for p in x[:3])
    for p, layout in zip((q, k, v), layouts):
        token = AXES[layout][0]
        if (
            p.form is not Form.token
            or len(p.shape) != 4
            or p.length_axes() != [token]
            or p.shape[0] not in (ONE, BATCH)
        ):
            raise Refused(f"attends over {words(p.shape)}, laid out {layout}")
    heads = q.shape[AXES[layouts[0]][1]]
    shape = [q.shape[0], *[ONE] * 3]
    sequence, head = AXES[layouts[3]]
    shape[sequence], shape[head], shape[3] = q.shape[AXES[layouts[0]][0]], heads, v.shape[3]
    attrs = {n: a.value for n, a in node.attributes.items()}
    mask = None
    if len(x) > 3 and x[3] is not None:
        mask, attrs["mask_form"] = _mask(t, x[3], heads)
    value = t.op("PackedAttention", q.value, k.value, v.value, t.aux("lengths"), mask, domain=pattern.DOMAIN,
                 hint=node.outputs[0].name or "", **attrs)  # fmt: skip
    return [Packed(Form.token, tuple(shape), value, dtype=node.outputs[0].dtype or ir.DataType.FLOAT)]


def _mask(t: Translation, mask: Packed, heads: Extent) -> tuple[ir.Value, str]:
    if mask.form in (Form.dims, Form.ghost) or len(mask.shape) > 4:
        raise Refused("has a mask that is not known per token")
    mask = t.at_rank(mask, 4)
    if mask.form is Form.sequence:
        mask = t.to_token(mask, 3, 4)
    extents, axes = mask.vary, mask.length_axes()
    others = [extents[i] for i in (2, 3) if i not in axes]
    if extents[0] not in (ONE, BATCH) or extents[1] not in (ONE, heads) or any(e != ONE for e in others):
        raise Refused(f"has a mask of {words(mask.shape)}")
    forms = {(): "fixed", (2,): "queries", (3,): "keys", (2, 3): "pairs"}
    if tuple(axes) not in forms:
        raise Refused(f"has a mask of {words(mask.shape)}")
    assert mask.value is not None
    return mask.value, forms[tuple(axes)]


def alone(t: Translation, node: ir.Node, x: list) -> list[Packed]:
    """A node that reads only constants."""
    shapes = [o.shape for o in node.outputs]
    if any(s is None or not s.is_static() for s in shapes):
        raise Refused("computes something of unknown shape")
    made = t.copy(node, [None if p is None else p.value for p in x])
    extents = [tuple(Extent(int(d)) for d in s) for s in shapes]  # type: ignore[union-attr, arg-type]
    return [Packed(form_of(e), e, v, dtype=o.dtype) for e, v, o in zip(extents, made, node.outputs)]


_rules: dict[tuple[str, str], Callable] = {
    **{("", op): elementwise for op in ELEMENTWISE},
    **{("", op): reduce for op in (*REDUCTIONS, "ReduceL1", "ReduceL2", "ReduceProd", "ReduceSumSquare", "ReduceLogSum",
                                   "ReduceLogSumExp")},
    **{("", op): softmax for op in ("Softmax", "LogSoftmax", "LpNormalization")},
    ("", "CumSum"): cumsum,
    ("", "DequantizeLinear"): quantize,
    ("", "Gemm"): matmul,
    ("", "LayerNormalization"): norm,
    ("", "MatMul"): matmul,
    ("", "MatMulInteger"): quantized_matmul,
    ("", "QLinearMatMul"): quantized_matmul,
    ("", "QuantizeLinear"): quantize,
    ("", "RMSNormalization"): norm,
    ("com.microsoft", "MatMulNBits"): quantized_matmul,
    (pattern.DOMAIN, "Attention"): attention,
    (pattern.DOMAIN, "MatMul"): matmul,
    (pattern.DOMAIN, "Pointwise"): pointwise,
    (pattern.DOMAIN, "SkipLayerNorm"): skip_norm,
    (pattern.DOMAIN, "SkipRMSNorm"): skip_norm,
}  # fmt: skip
RULES: dict[tuple[str, str], Rule] = _rules
