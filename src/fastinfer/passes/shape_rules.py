# SPDX-License-Identifier: Apache-2.0
"""Shape rules: RULES[(domain, op)](shapes, node) gives the extents of each output (None: unknown)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from . import dims as D
from . import pattern as P
from .dims import Dim, Dims

if TYPE_CHECKING:
    from .shapes import Shapes

Result = Sequence[Dims | None]
Rule = Callable[["Shapes", ir.Node], Result]
MAX_CONTENT = 64  # elements of an integer tensor that are followed symbolically
RULES: dict[tuple[str, str], Rule] = {}

SAME_SHAPE = """Abs Acos Acosh Asin Asinh Atan Atanh Cast CastLike Ceil Celu Clip Cos Cosh CumSum DequantizeLinear Dropout
    Elu Erf Exp Floor Gelu HardSigmoid HardSwish Hardmax Identity IsInf IsNaN LeakyRelu Log LogSoftmax
    LpNormalization LRN MeanVarianceNormalization Mish Neg Not PRelu QuantizeLinear Reciprocal Relu Round
    ScatterElements ScatterND Scatter Selu Shrink Sigmoid Sign Sin Sinh Softmax Softplus Softsign Sqrt Swish Tan
    Tanh ThresholdedRelu Trilu BatchNormalization InstanceNormalization GroupNormalization LayerNormalization
    RMSNormalization BitwiseNot CumProd Bernoulli RandomNormalLike RandomUniformLike EyeLike RotaryEmbedding
    ReverseSequence TensorScatter""".split()
BROADCAST = """Add Sub Mul Div Pow Mod Equal Less LessOrEqual Greater GreaterOrEqual And Or Xor BitShift BitwiseAnd
    BitwiseOr BitwiseXor Max Min Sum Mean Where""".split()
BOOLEAN = set("""Equal Less LessOrEqual Greater GreaterOrEqual And Or Xor Not IsNaN IsInf""".split())
INT64 = set(["Shape", "Size", "ArgMax", "ArgMin", "NonZero", "NonMaxSuppression"])
FIRST_DTYPE = (
    set(SAME_SHAPE)
    | set(BROADCAST)
    | set(
        """MatMul Gemm Conv ConvTranspose MaxPool AveragePool LpPool GlobalAveragePool GlobalMaxPool GlobalLpPool
    ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp
    ReduceSumSquare Reshape Flatten Squeeze Unsqueeze Transpose Concat Split Slice Pad Expand Tile Gather
    GatherElements GatherND Resize DepthToSpace SpaceToDepth TopK LSTM GRU RNN Attention Einsum Range Compress
    GridSample RoiAlign Col2Im Det MaxRoiPool Upsample""".split()
    )
)


def registrar(table: dict[tuple[str, str], Rule]) -> Callable[..., Callable[[Rule], Rule]]:
    """The decorator @shape_rule(op..., domain="") that enters a rule into `table`."""

    def shape_rule(*ops: str, domain: str = "") -> Callable[[Rule], Rule]:
        def register(rule: Rule) -> Rule:
            table.update({(domain, op): rule for op in ops})
            return rule

        return register

    return shape_rule


shape_rule = registrar(RULES)


def set_dtypes(node: ir.Node) -> None:
    """Element types of outputs that have none yet."""
    for i, value in enumerate(node.outputs):
        if value.type is None:
            dtype = _dtype(node, i)
            if dtype is not None:
                value.type = ir.TensorType(dtype)


def _dtype(node: ir.Node, output: int) -> ir.DataType | None:
    op = node.op_type
    if node.domain not in ("", P.DOMAIN):
        return None
    if op == "QuantizeLinear" or (node.domain and op in ("QConv", "QMatMul")):
        zero = P.get(node, 7 if node.domain else 2)
        named = P.attr(node, "output_dtype", 0) or (ir.DataType.FLOAT if node.domain else ir.DataType.UINT8)
        return zero.dtype if zero is not None else ir.DataType(named)
    if node.domain == P.DOMAIN:
        return ir.DataType.FLOAT if op != "Pointwise" else None
    if op in BOOLEAN:
        return ir.DataType.BOOL
    if op in INT64 or (op in ("TopK", "MaxPool") and output == 1):
        return ir.DataType.INT64
    if op == "Cast":
        return ir.DataType(P.attr(node, "to"))
    if op == "ConstantOfShape":
        value = P.attr(node, "value")
        return ir.DataType.FLOAT if value is None else value.dtype
    if op in ("Where", "CastLike", "DequantizeLinear", "OneHot"):
        source = P.get(node, {"OneHot": 2}.get(op, 1))
        return source.dtype if source is not None else None
    if op in FIRST_DTYPE and node.inputs and node.inputs[0] is not None:
        return node.inputs[0].dtype
    return None


# ---------------------------------------------------------------------------------------------------- elementwise


@shape_rule(*SAME_SHAPE)
def _same(s: Shapes, node: ir.Node) -> Result:
    return [s.dims(P.get(node, 0))] + [None] * (len(node.outputs) - 1)


@shape_rule(*BROADCAST)
def _broadcast(s: Shapes, node: ir.Node) -> Result:
    return [s.broadcast([s.dims(v) for v in node.inputs])]


@shape_rule("Pointwise", domain=P.DOMAIN)
def _pointwise(s: Shapes, node: ir.Node) -> Result:
    common = s.broadcast([s.dims(v) for v in node.inputs])
    return [common] * len(node.outputs)


@shape_rule("SkipLayerNorm", "SkipRMSNorm", domain=P.DOMAIN)
def _skip_norm(s: Shapes, node: ir.Node) -> Result:
    return [s.dims(node.inputs[0])] * 2


@shape_rule("InstanceNormalization", "GroupNormalization", domain=P.DOMAIN)
def _norm(s: Shapes, node: ir.Node) -> Result:
    return [s.dims(node.inputs[0])]


@shape_rule("LayerNormalization")
def _layer_norm(s: Shapes, node: ir.Node) -> Result:
    return [s.dims(node.inputs[0])]


# --------------------------------------------------------------------------------------------------------- matmul


@shape_rule("MatMul", "MatMulInteger")
@shape_rule("MatMul", domain=P.DOMAIN)
@shape_rule("FusedMatMul", domain="com.microsoft")
def _matmul(s: Shapes, node: ir.Node) -> Result:
    a, b = s.dims(node.inputs[0]), s.dims(node.inputs[1])
    if a is None or b is None:
        return [None]
    if P.attr(node, "transA", 0) and len(a) > 1:
        a = (*a[:-2], a[-1], a[-2])
    if P.attr(node, "transB", 0) and len(b) > 1:
        b = (*b[:-2], b[-1], b[-2])
    batch = s.broadcast([a[:-2], b[:-2]])
    assert batch is not None
    return [batch + (a[-2:-1] if len(a) > 1 else ()) + (b[-1:] if len(b) > 1 else ())]


@shape_rule("Gemm")
def _gemm(s: Shapes, node: ir.Node) -> Result:
    a, b = s.dims(node.inputs[0]), s.dims(node.inputs[1])
    if a is None or b is None:
        return [None]
    return [(a[1] if P.attr(node, "transA", 0) else a[0], b[0] if P.attr(node, "transB", 0) else b[1])]


@shape_rule("Attention", domain=P.DOMAIN)
def _attention(s: Shapes, node: ir.Node) -> Result:
    q, v = s.dims(node.inputs[0]), s.dims(node.inputs[2])
    if q is None or v is None:
        return [None]
    batch, heads, rows = (q[0], q[1], q[2]) if P.attr(node, "q_layout", "BNSH") == "BNSH" else (q[0], q[2], q[1])
    return [(batch, heads, rows, v[3]) if P.attr(node, "o_layout", "BNSH") == "BNSH" else (batch, rows, heads, v[3])]


@shape_rule("Attention")
def _onnx_attention(s: Shapes, node: ir.Node) -> Result:
    q, v = s.dims(node.inputs[0]), s.dims(node.inputs[2])
    if q is None or v is None:
        return [None]
    if len(q) == 4:
        return [(*q[:3], v[3])]
    heads = D.mul(P.attr(node, "q_num_heads", 1), D.floor_div(v[2], P.attr(node, "kv_num_heads", 1)))
    return [(q[0], q[1], heads)]


# -------------------------------------------------------------------------------------------------------- spatial


def split_layout(node: ir.Node, dims: Dims) -> tuple[Dim, Dim, Dims]:
    """(N, C, spatial) of data that is channels-first or, by attribute, channels-last."""
    return (dims[0], dims[-1], dims[1:-1]) if P.attr(node, "channels_last", 0) else (dims[0], dims[1], dims[2:])


def join_layout(node: ir.Node, n: Dim, c: Dim, spatial: Sequence[Dim]) -> Dims:
    return (n, *spatial, c) if P.attr(node, "channels_last", 0) else (n, c, *spatial)


def _window(node: ir.Node, spatial: Dims, kernel: Sequence[int]) -> Dims:
    k = len(spatial)
    strides = list(P.attr(node, "strides") or [1] * k)
    dilations = list(P.attr(node, "dilations") or [1] * k)
    pads = list(P.attr(node, "pads") or [0] * 2 * k)
    auto = P.attr(node, "auto_pad", "NOTSET")
    out: list[Dim] = []
    for i, d in enumerate(spatial):
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            out.append(D.ceil_div(d, strides[i]))
            continue
        reach = (kernel[i] - 1) * dilations[i] + 1
        padded = D.add(d, (pads[i] + pads[i + k] if auto == "NOTSET" else 0) - reach)
        if P.attr(node, "ceil_mode", 0):
            if not isinstance(padded, int):
                out.append(D.opaque("pool", padded, strides[i], pads[i], d))
                continue
            steps = -(-padded // strides[i])
            # The last window must start inside the input or its left padding.
            out.append(steps + (1 if steps * strides[i] < int(d) + pads[i] else 0))  # type: ignore[arg-type]
        else:
            out.append(D.add(D.floor_div(padded, strides[i]), 1))
    return tuple(out)


@shape_rule("Conv", "ConvInteger")
@shape_rule("Conv", domain=P.DOMAIN)
def _conv(s: Shapes, node: ir.Node) -> Result:
    x, w = s.dims(node.inputs[0]), s.dims(node.inputs[1])
    if x is None or w is None:
        return [None]
    n, _, spatial = (x[0], x[1], x[2:]) if P.attr(node, "x_channels_first", 0) else split_layout(node, x)
    kernel = [d for d in w[2:] if isinstance(d, int)]
    if len(kernel) != len(spatial):
        return [join_layout(node, n, w[0], [s.fresh() for _ in spatial])]
    return [join_layout(node, n, w[0], _window(node, spatial, kernel))]


@shape_rule("ConvTranspose")
@shape_rule("ConvTranspose", domain=P.DOMAIN)
def _conv_transpose(s: Shapes, node: ir.Node) -> Result:
    x, w = s.dims(node.inputs[0]), s.dims(node.inputs[1])
    if x is None or w is None:
        return [None]
    n, _, spatial = split_layout(node, x)
    k = len(spatial)
    channels = D.mul(w[1], P.attr(node, "group", 1))
    if P.attr(node, "output_shape") is not None:
        return [join_layout(node, n, channels, tuple(P.attr(node, "output_shape"))[-k:])]
    strides = list(P.attr(node, "strides") or [1] * k)
    dilations = list(P.attr(node, "dilations") or [1] * k)
    pads = list(P.attr(node, "pads") or [0] * 2 * k)
    extra = list(P.attr(node, "output_padding") or [0] * k)
    auto = P.attr(node, "auto_pad", "NOTSET")
    out: list[Dim] = []
    for i, d in enumerate(spatial):
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            out.append(D.mul(d, strides[i]))
            continue
        reach = D.add(D.mul(D.add(w[2 + i], -1), dilations[i]), 1)
        trimmed = extra[i] - (pads[i] + pads[i + k] if auto == "NOTSET" else 0)
        out.append(D.add(D.add(D.mul(D.add(d, -1), strides[i]), reach), trimmed))
    return [join_layout(node, n, channels, out)]


@shape_rule("MaxPool", "AveragePool", "LpPool")
@shape_rule("MaxPool", "AveragePool", "LpPool", domain=P.DOMAIN)
def _pool(s: Shapes, node: ir.Node) -> Result:
    x = s.dims(node.inputs[0])
    if x is None:
        return [None]
    n, c, spatial = split_layout(node, x)
    return [join_layout(node, n, c, _window(node, spatial, P.attr(node, "kernel_shape")))] * len(node.outputs)


@shape_rule("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
@shape_rule("GlobalAveragePool", "GlobalMaxPool", domain=P.DOMAIN)
def _global_pool(s: Shapes, node: ir.Node) -> Result:
    x = s.dims(node.inputs[0])
    if x is None:
        return [None]
    n, c, spatial = split_layout(node, x)
    return [join_layout(node, n, c, [1] * len(spatial))]


@shape_rule("Resize")
@shape_rule("Resize", domain=P.DOMAIN)
def _resize(s: Shapes, node: ir.Node) -> Result:
    x = s.dims(node.inputs[0])
    if x is None:
        return [None]
    last = bool(P.attr(node, "channels_last", 0))
    dims = (x[0], x[-1], *x[1:-1]) if last else x
    out = _resized(s, node, dims)
    return [(out[0], *out[2:], out[1]) if last else out]


def _resized(s: Shapes, node: ir.Node, dims: Dims) -> Dims:
    axes = [a % len(dims) for a in P.attr(node, "axes") or range(len(dims))]
    sizes, scales = s.content(P.get(node, 3)), P.constant(P.get(node, 2))
    policy = P.attr(node, "keep_aspect_ratio_policy", "stretch")
    out = list(dims)
    for i, axis in enumerate(axes):
        if sizes is not None and policy == "stretch":
            out[axis] = sizes[i]
        elif scales is not None and scales.size == len(axes):
            factor, d = float(scales.reshape(-1)[i]), dims[axis]
            if isinstance(d, int):
                out[axis] = int(d * factor)
            elif factor == int(factor):
                out[axis] = D.mul(d, int(factor))
            else:
                out[axis] = D.opaque("resize", d, symbol_of(factor))
        else:
            out[axis] = s.fresh()
    return tuple(out)


def symbol_of(number: float) -> Dim:
    return D.symbol(repr(number))


@shape_rule("DepthToSpace", "SpaceToDepth")
@shape_rule("DepthToSpace", "SpaceToDepth", domain=P.DOMAIN)
def _depth(s: Shapes, node: ir.Node) -> Result:
    x, b = s.dims(node.inputs[0]), P.attr(node, "blocksize")
    if x is None:
        return [None]
    n, c, spatial = split_layout(node, x)
    if node.op_type == "DepthToSpace":
        return [join_layout(node, n, D.floor_div(c, b * b), [D.mul(d, b) for d in spatial])]
    return [join_layout(node, n, D.mul(c, b * b), [D.floor_div(d, b) for d in spatial])]


@shape_rule("LSTM", "GRU", "RNN")
def _recurrent(s: Shapes, node: ir.Node) -> Result:
    x, r = s.dims(node.inputs[0]), s.dims(node.inputs[2])
    if x is None or r is None:
        return [None]
    directions, hidden = r[0], r[2]
    if P.attr(node, "layout", 0):
        state: Dims = (x[0], directions, hidden)
        return [(x[0], x[1], directions, hidden), state, state]
    state = (directions, x[1], hidden)
    return [(x[0], directions, x[1], hidden), state, state]


# ---------------------------------------------------------------------------------------------------- control flow


@shape_rule("If")
def _if(s: Shapes, node: ir.Node) -> Result:
    branches = [[s.dims(v) for v in g.outputs] for a in node.attributes.values() for g in P.nested_graphs(a)]
    out: list[Dims | None] = []
    for shapes in zip(*branches):
        if any(x is None or len(x) != len(shapes[0] or ()) for x in shapes):
            out.append(None)
        else:
            out.append(tuple(ds[0] if all(d == ds[0] for d in ds) else s.fresh() for ds in zip(*shapes)))
    return out


@shape_rule("Loop")
def _loop(s: Shapes, node: ir.Node) -> Result:
    body: ir.Graph = P.attr(node, "body")
    carried = len(node.inputs) - 2
    out: list[Dims | None] = []
    for i, value in enumerate(body.outputs[1:]):
        rank = s.rank(value)
        scanned = i >= carried
        out.append(None if rank is None else tuple(s.fresh() for _ in range(rank + scanned)))
    return out


def attribute_or_input(node: ir.Node, name: str, index: int) -> Any:
    """A list of ints that is an attribute in old opsets and a (constant) input in new ones."""
    return list(P.attr(node, name)) if P.attr(node, name) is not None else P.ints(P.get(node, index))
