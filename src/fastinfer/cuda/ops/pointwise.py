# SPDX-License-Identifier: Apache-2.0
"""Pointwise programs and single pointwise operators."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import torch

from fastinfer.cuda.context import Binder, Declined, Handle, NodeContext
from fastinfer.cuda.kernels import pointwise
from fastinfer.cuda.kernels.pointwise_source import Program
from fastinfer.cuda.kernels.pointwise_walk import walk_broadcast

_FLOATS = {torch.float32, torch.float16, torch.bfloat16}
_INTS = {torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8}
MOST = 16  # inputs, outputs
Operand = tuple[str, int]


def kind(dtype: torch.dtype) -> str:
    """Raises Declined for float64 and what else has no arithmetic here."""
    if dtype == torch.bool:
        return "b"
    if dtype not in _FLOATS | _INTS:
        raise Declined(f"{dtype} in a pointwise kernel")
    return "f" if dtype in _FLOATS else "i"


class Build:
    """A program in the making, from a node's inputs. bytes: integers are taken as their numbers."""

    def __init__(self, ctx: NodeContext, numbers: bool = False) -> None:
        self.ctx, self._numbers = ctx, numbers
        self.kinds: list[str] = []
        self.tensors: list[tuple[int, tuple[int, ...]]] = []  # (input of the node, its shape)
        self.scalars: dict[int, float] = {}
        self.ops: list[tuple[str, tuple[Operand, ...]]] = []
        self._at: dict[int, Operand] = {}

    def x(self, i: int) -> Operand:
        """Input i: a number where it is one that is known, else a tensor."""
        value = self.ctx.node["inputs"][i]
        if value not in self._at:
            self._at[value] = self._input(i)
        return self._at[value]

    def _input(self, i: int) -> Operand:
        desc, known = self.ctx.desc(i), self.ctx.known(i)
        which = kind(desc.dtype)
        which = "f" if which == "i" and self._numbers else which
        if which == "f" and known is not None and known.size == 1:
            return self.number(float(known.reshape(-1)[0]))
        self.kinds.append(which)
        self.tensors.append((i, desc.shape))
        return "in", len(self.kinds) - 1

    def number(self, value: float) -> Operand:
        self.kinds.append("f")
        self.scalars[len(self.kinds) - 1] = value
        return "in", len(self.kinds) - 1

    def op(self, name: str, *operands: Operand) -> Operand:
        self.ops.append((name, operands))
        return "op", len(self.ops) - 1

    def program(self, outputs: list[Operand]) -> Program:
        """Raises Declined for operands that an operation has no form for."""
        place = {"in": 0, "op": len(self.kinds)}
        rows = [[place[o[0]] + o[1] for o in operands] for _, operands in self.ops]
        args = [k for row in rows for k in [*row, -1, -1, -1][:3]]
        made = Program(
            tuple(self.kinds), tuple(n for n, _ in self.ops), tuple(args), tuple(o[1] for o in outputs), frozenset(self.scalars)
        )  # fmt: skip
        try:
            made.results()
        except ValueError as why:
            raise Declined(str(why)) from None
        return made


def add(ctx: NodeContext, build: Build, outputs: list[Operand]) -> None:
    """The step; the program's results leave as the node's outputs. Raises Declined."""
    wanted = [(j, o) for j, o in enumerate(outputs) if ctx.wants(j)]
    if len(build.tensors) > MOST or len(wanted) > MOST or not wanted:
        raise Declined(f"{len(build.tensors)} inputs and {len(wanted)} outputs; at most {MOST} of each")
    program = build.program([o for _, o in wanted])
    shape = ctx.out_desc(wanted[0][0]).shape
    for t in [ctx.desc(i).dtype for i, _ in build.tensors] + [ctx.out_desc(j).dtype for j, _ in wanted]:
        kind(t)
    walk = walk_broadcast(shape, [s for _, s in build.tensors], len(wanted))
    inputs = [ctx.input(i, wide=True) for i, _ in build.tensors]
    handles: list[Handle] = inputs + [ctx.output(j, wide=True) for j, _ in wanted]
    if walk.elements == 0:
        return
    bounded = any(_overflows(ctx, j, build, inputs) for j, _ in wanted)
    problem = pointwise.Problem(program, walk, tuple(h.desc.dtype for h in handles), bounded)
    config = ctx.choose(pointwise, problem)
    name = f"triton_pointwise[{len(build.ops)}] {config}"
    ctx.step(name, pointwise.run, *handles, problem=problem, config=config, scalars=tuple(build.scalars.values()))


def _overflows(ctx: NodeContext, out: int, build: Build, inputs: list[Handle]) -> bool:
    """Whether numbers reach a half beyond its range: masks are made of float32's least number, whose infinity would make a row
    that is masked out NaN. What the graph itself types a half overflows as ONNX says."""
    stored = ctx.out_desc(out).dtype
    if ctx.typed_out(out) == stored or stored not in pointwise.HALVES:
        return False
    most = pointwise.HALVES[stored]
    wide = any(h.desc.dtype in _FLOATS and torch.finfo(h.desc.dtype).max > most for h in inputs)
    return wide or any(most < abs(value) < inf for value in build.scalars.values())


def bind_program(ctx: NodeContext) -> None:
    """fastinfer.Pointwise"""
    build = Build(ctx, numbers=True)
    values = [build.x(i) for i in range(ctx.n_inputs)]
    args = [int(a) for a in ctx.attr("args")]
    for i, name in enumerate(ctx.attr("ops")):
        name = name.decode() if isinstance(name, bytes) else name
        values.append(build.op(name, *(values[k] for k in args[3 * i : 3 * i + 3] if k >= 0)))
    add(ctx, build, [values[ctx.n_inputs + int(k)] for k in ctx.attr("outputs")])


Make = Callable[[Build], Operand]


def _single(make: Make) -> Binder:
    def bind(ctx: NodeContext) -> None:
        build = Build(ctx)
        result = make(build)
        add(ctx, build, [result])

    return bind


def _direct(name: str) -> Make:
    return lambda b: b.op(name, *(b.x(i) for i in range(b.ctx.n_inputs)))


def _fold(name: str) -> Make:
    def make(b: Build) -> Operand:
        result = b.op("copy", b.x(0)) if b.ctx.n_inputs == 1 else b.x(0)
        for i in range(1, b.ctx.n_inputs):
            result = b.op(name, result, b.x(i))
        return result

    return make


def _mean(b: Build) -> Operand:
    return b.op("div", _fold("add")(b), b.number(float(b.ctx.n_inputs)))


def _with(name: str, **defaults: float) -> Make:
    return lambda b: b.op(name, b.x(0), *(b.number(float(b.ctx.attr(k, d))) for k, d in defaults.items()))


def _text(b: Build, name: str, default: str) -> str:
    value = b.ctx.attr(name, default)
    return value.decode() if isinstance(value, bytes) else value


def _gelu(b: Build) -> Operand:
    return b.op("gelu_tanh" if _text(b, "approximate", "none") == "tanh" else "gelu", b.x(0))


def _selu(b: Build) -> Operand:
    alpha, gamma = (float(b.ctx.attr(k, d)) for k, d in (("alpha", 1.6732632), ("gamma", 1.0507010)))
    return b.op("mul", b.op("elu", b.x(0), b.number(alpha)), b.number(gamma))


def _thresholded(b: Build) -> Operand:
    x = b.x(0)
    return b.op("where", b.op("greater", x, b.number(float(b.ctx.attr("alpha", 1.0)))), x, b.number(0.0))


def _clip(b: Build) -> Operand:
    x = b.x(0)
    low, high = (b.x(i) if b.ctx.has(i) else None for i in (1, 2))
    if low is not None and high is not None:
        return b.op("clip", x, low, high)
    if low is not None:
        return b.op("max", x, low)
    return b.op("min", x, high) if high is not None else b.op("copy", x)


def _pow(b: Build) -> Operand:
    x, known = b.x(0), b.ctx.known(1)
    exponent = float(known.reshape(-1)[0]) if known is not None and known.size == 1 else None
    if kind(b.ctx.desc(0).dtype) != "f":
        raise Declined("a power of integers")
    if exponent is not None:
        name = {2.0: "square", 0.5: "sqrt", -1.0: "reciprocal", 1.0: "copy"}.get(exponent)
        return b.op(name, x) if name else b.op("pow", x, b.number(exponent))
    y = b.x(1)
    return b.op("pow", x, b.op("real", y) if kind(b.ctx.desc(1).dtype) == "i" else y)


def _is_inf(b: Build) -> Operand:
    negative, positive = bool(b.ctx.attr("detect_negative", 1)), bool(b.ctx.attr("detect_positive", 1))
    if negative and positive:
        return b.op("is_inf", b.x(0))
    if not (negative or positive):
        raise Declined("IsInf that detects nothing")
    return b.op("equal", b.x(0), b.number(inf if positive else -inf))


def _cast(b: Build) -> Operand:
    """Numbers beyond the range of an 8-bit type become its ends; ONNX leaves them open."""
    source, target = kind(b.ctx.desc(0).dtype), kind(b.ctx.out_desc(0).dtype)
    name = {"fb": "truth", "ib": "truth", "bf": "number", "if": "real"}.get(source + target, "copy")
    return b.op(name, b.x(0))


_SINGLE: dict[str, Make] = {
    **{op: _direct(name) for op, name in {
        "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Neg": "neg", "Abs": "abs", "Sqrt": "sqrt", "Exp": "exp",
        "Log": "log", "Erf": "erf", "Tanh": "tanh", "Sigmoid": "sigmoid", "Relu": "relu", "Softplus": "softplus",
        "HardSwish": "hard_swish", "Floor": "floor", "Ceil": "ceil", "Round": "round", "Sign": "sign", "Sin": "sin",
        "Cos": "cos", "Mish": "mish", "Softsign": "softsign", "Reciprocal": "reciprocal", "Where": "where", "Less": "less",
        "LessOrEqual": "less_equal", "Greater": "greater", "GreaterOrEqual": "greater_equal", "Equal": "equal",
        "Not": "not", "And": "and", "Or": "or", "Xor": "xor", "IsNaN": "is_nan", "PRelu": "leaky_relu",
    }.items()},
    "Max": _fold("max"), "Min": _fold("min"), "Sum": _fold("add"), "Mean": _mean,
    "LeakyRelu": _with("leaky_relu", alpha=0.01), "Elu": _with("elu", alpha=1.0),
    "HardSigmoid": _with("hard_sigmoid", alpha=0.2, beta=0.5), "Swish": _with("quick_gelu", alpha=1.0),
    "Selu": _selu, "ThresholdedRelu": _thresholded, "Gelu": _gelu, "Clip": _clip, "Pow": _pow, "IsInf": _is_inf,
    "Cast": _cast, "CastLike": _cast,
}  # fmt: skip

BINDERS: dict[tuple[str, str], Binder] = {
    ("fastinfer", "Pointwise"): bind_program,
    **{("", op): _single(make) for op, make in _SINGLE.items()},
}
