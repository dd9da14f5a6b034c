# SPDX-License-Identifier: Apache-2.0
"""Reading scalar algebra out of a graph, whatever the order in which an exporter wrote it down."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from . import pattern as P

_DEPTH = 6


@dataclass
class Product:
    """number · factor · factor ..."""

    number: float = 1.0
    factors: list[ir.Value] = field(default_factory=list)

    def other(self, value: ir.Value) -> ir.Value | None:
        """The second of exactly two factors."""
        if len(self.factors) != 2 or not any(f is value for f in self.factors):
            return None
        return self.factors[1] if self.factors[0] is value else self.factors[0]


def product(value: ir.Value, depth: int = _DEPTH) -> Product:
    """`value` as a product: nested Mul, Div by a number, Neg are opened."""
    out = Product()
    _open(value, out, depth)
    return out


def _open(value: ir.Value, out: Product, depth: int) -> None:
    node = value.producer()
    number = P.scalar(value)
    if number is not None:
        out.number *= number
    elif depth and P.is_op(node, "Mul"):
        for factor in node.inputs:  # type: ignore[union-attr]
            _open(factor, out, depth - 1)  # type: ignore[arg-type]
    elif depth and P.is_op(node, "Neg"):
        out.number = -out.number
        _open(node.inputs[0], out, depth - 1)  # type: ignore[union-attr, arg-type]
    elif depth and P.is_op(node, "Div") and (divisor := P.scalar(node.inputs[1])):  # type: ignore[union-attr]
        out.number /= divisor
        _open(node.inputs[0], out, depth - 1)  # type: ignore[union-attr, arg-type]
    else:
        out.factors.append(value)


def polynomial(value: ir.Value, x: ir.Value, depth: int = _DEPTH) -> list[float] | None:
    """Coefficients [c0, c1, ...] of `value` as a polynomial in x of degree ≤ 3, else None."""
    if value is x:
        return [0.0, 1.0]
    number = P.scalar(value)
    if number is not None:
        return [number]
    node = value.producer()
    if not depth or not P.is_op(node, "Add", "Sub", "Mul", "Div", "Neg", "Pow"):
        return None
    assert node is not None
    parts = [polynomial(v, x, depth - 1) for v in node.inputs if v is not None]
    a = parts[0]
    if a is None:
        return None
    if node.op_type == "Neg":
        return [-c for c in a]
    b = parts[1]
    if b is None:
        return None
    if node.op_type in ("Add", "Sub"):
        sign = 1.0 if node.op_type == "Add" else -1.0
        n = max(len(a), len(b))
        return _trim([_at(a, i) + sign * _at(b, i) for i in range(n)])
    if node.op_type == "Mul":
        return _multiply(a, b)
    if node.op_type == "Div":
        return [c / b[0] for c in a] if len(b) == 1 and b[0] else None
    if len(b) == 1 and b[0] in (1.0, 2.0, 3.0):
        out: list[float] | None = [1.0]
        for _ in range(int(b[0])):
            out = None if out is None else _multiply(out, a)
        return out
    return None


def _at(p: list[float], i: int) -> float:
    return p[i] if i < len(p) else 0.0


def _trim(p: list[float]) -> list[float]:
    while len(p) > 1 and p[-1] == 0.0:
        p.pop()
    return p


def _multiply(a: list[float], b: list[float]) -> list[float] | None:
    if len(a) + len(b) > 5:
        return None
    out = [0.0] * (len(a) + len(b) - 1)
    for i, c in enumerate(a):
        for j, d in enumerate(b):
            out[i + j] += c * d
    return out


def is_polynomial(value: ir.Value, x: ir.Value, *coefficients: float, tolerance: float = 1e-4) -> bool:
    """`value` = Σ coefficients[i]·xⁱ, constants compared with a relative tolerance (exporters round them)."""
    found = polynomial(value, x)
    return (
        found is not None
        and len(found) == len(coefficients)
        and all(abs(f - c) <= tolerance * max(abs(c), 1e-3) for f, c in zip(found, coefficients))
    )


def linear(value: ir.Value, x: ir.Value) -> tuple[float, float] | None:
    """(a, b) of a·x + b."""
    found = polynomial(value, x)
    return (found[1], found[0]) if found is not None and len(found) == 2 else None


def one_plus(value: ir.Value) -> ir.Value | None:
    """t of 1 + t."""
    found = P.with_scalar(value.producer(), "Add")
    return found[0] if found is not None and abs(found[1] - 1.0) < 1e-6 else None


def clip_bounds(node: ir.Node | None) -> tuple[ir.Value, float, float] | None:
    """(x, low, high) of Clip with constant bounds, or of Relu."""
    if P.is_op(node, "Relu"):
        return node.inputs[0], 0.0, float("inf")  # type: ignore[union-attr, return-value]
    if not P.is_op(node, "Clip"):
        return None
    bounds = []
    for i, missing in ((1, -float("inf")), (2, float("inf"))):
        value = P.get(node, i)  # type: ignore[arg-type]
        number = missing if value is None else P.scalar(value)
        if number is None:
            return None
        bounds.append(number)
    return node.inputs[0], bounds[0], bounds[1]  # type: ignore[union-attr, return-value]
