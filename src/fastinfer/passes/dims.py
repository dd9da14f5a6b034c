# SPDX-License-Identifier: Apache-2.0
"""Symbolic extents: integer polynomials over named symbols, so that equality of shapes can be proved.

An extent (`Dim`) is an `int` or an `Expr`. `Expr` is canonical: two equal polynomials compare and hash equal. What is not a
polynomial (floor division that leaves a remainder, minimum, ...) becomes an opaque symbol named after its operands, so
that the same computation on the same operands is still recognised as equal. Symbols stand for extents and are never negative.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Union

Monomial = tuple[str, ...]


class Expr:
    """A polynomial that is not a plain number: {sorted symbols: coefficient}."""

    __slots__ = ("_hash", "_terms")

    def __init__(self, terms: tuple[tuple[Monomial, int], ...]):
        self._terms = terms
        self._hash = hash(terms)

    @property
    def terms(self) -> tuple[tuple[Monomial, int], ...]:
        return self._terms

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expr) and self._terms == other._terms

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        return " + ".join("*".join(([str(c)] if c != 1 or not m else []) + list(m)) for m, c in self._terms)

    __repr__ = __str__


Dim = Union[int, Expr]
Dims = tuple[Dim, ...]


def symbol(name: str) -> Expr:
    return Expr((((name,), 1),))


def at(d: Dim, extent: int) -> int:
    """The number that it is when every symbol stands for `extent`."""
    return sum(c * extent ** len(m) for m, c in _terms(d))


def _terms(d: Dim) -> tuple[tuple[Monomial, int], ...]:
    if isinstance(d, Expr):
        return d.terms
    return (((), d),) if d else ()


def _make(terms: dict[Monomial, int]) -> Dim:
    kept = sorted((m, c) for m, c in terms.items() if c)
    if not kept:
        return 0
    if len(kept) == 1 and not kept[0][0]:
        return kept[0][1]
    return Expr(tuple(kept))


def add(a: Dim, b: Dim) -> Dim:
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    out = dict(_terms(a))
    for m, c in _terms(b):
        out[m] = out.get(m, 0) + c
    return _make(out)


def mul(a: Dim, b: Dim) -> Dim:
    if isinstance(a, int) and isinstance(b, int):
        return a * b
    out: dict[Monomial, int] = {}
    for m, c in _terms(a):
        for n, d in _terms(b):
            key = tuple(sorted(m + n))
            out[key] = out.get(key, 0) + c * d
    return _make(out)


def sub(a: Dim, b: Dim) -> Dim:
    return add(a, mul(b, -1))


def product(dims: Iterable[Dim]) -> Dim:
    result: Dim = 1
    for d in dims:
        result = mul(result, d)
    return result


def exact_div(a: Dim, b: Dim) -> Dim | None:
    """a / b when it is a polynomial for every value of the symbols (b a single term), else None."""
    if a == b:
        return 1
    divisor = _terms(b)
    if len(divisor) != 1:
        return None
    (monomial, coefficient) = divisor[0]
    out: dict[Monomial, int] = {}
    for m, c in _terms(a):
        rest = list(m)
        for s in monomial:
            if s not in rest:
                return None
            rest.remove(s)
        if c % coefficient:
            return None
        out[tuple(rest)] = c // coefficient
    return _make(out)


def floor_div(a: Dim, b: Dim) -> Dim:
    """⌊a / b⌋; the part of a that b divides leaves the bracket."""
    if isinstance(a, int) and isinstance(b, int) and b:
        return a // b
    exact = exact_div(a, b)
    if exact is not None:
        return exact
    if not isinstance(b, int) or b <= 0:
        return symbol(f"[({a})//({b})]")
    whole: dict[Monomial, int] = {}
    rest: dict[Monomial, int] = {}
    for m, c in _terms(a):
        whole[m], rest[m] = c // b, c % b
    remainder = _make(rest)
    inner: Dim = remainder // b if isinstance(remainder, int) else symbol(f"[({remainder})//{b}]")
    return add(_make(whole), inner)


def ceil_div(a: Dim, b: Dim) -> Dim:
    return mul(floor_div(mul(a, -1), b), -1)


def opaque(name: str, *operands: Dim) -> Dim:
    """A symbol for name(operands...), the same for the same operands."""
    return symbol(f"[{name}({','.join(map(str, operands))})]")


def minimum(a: Dim, b: Dim) -> Dim:
    return _extreme("min", a, b)


def maximum(a: Dim, b: Dim) -> Dim:
    return _extreme("max", a, b)


def _extreme(name: str, a: Dim, b: Dim) -> Dim:
    difference = sub(a, b)
    if at_least(difference, 0):
        return a if name == "max" else b
    if at_least(mul(difference, -1), 0):
        return b if name == "max" else a
    return opaque(name, *sorted((a, b), key=str))


def at_least(d: Dim, bound: int) -> bool:
    """Provably d ≥ bound, symbols being ≥ 0."""
    constant = 0
    for m, c in _terms(d):
        if not m:
            constant = c
        elif c < 0:
            return False
    return constant >= bound


def is_one(d: Dim) -> bool:
    return isinstance(d, int) and d == 1


def broadcast_dim(a: Dim, b: Dim) -> Dim | None:
    """The numpy-broadcast extent, or None when it cannot be said."""
    if a == b or is_one(b):
        return a
    if is_one(a):
        return b
    if isinstance(a, int):
        return a
    if isinstance(b, int):
        return b
    return None
