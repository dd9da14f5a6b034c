# SPDX-License-Identifier: Apache-2.0
"""What is known of a value of the original graph, and how the packed graph holds it."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir


class Refused(Exception):
    """The graph has no packed form; the message says which node is in the way and why."""


@dataclass(frozen=True)
class Extent:
    """c · Bᵇ · Lˡ + plus, where B is the batch and L the length of a sequence."""

    c: int = 1
    b: int = 0
    l: int = 0  # noqa: E741
    plus: int = 0

    @property
    def fixed(self) -> bool:
        return self.b == self.l == 0

    def times(self, other: Extent) -> Extent:
        if self.plus or other.plus:
            if self.fixed or other.fixed:
                k, x = (self, other) if self.fixed else (other, self)
                return Extent(x.c * (k.c + k.plus), x.b, x.l, x.plus * (k.c + k.plus))
            raise Refused(f"computes with the length: ({self}) · ({other})")
        return Extent(self.c * other.c, self.b + other.b, self.l + other.l)

    def over(self, other: Extent) -> Extent:
        exact = not self.plus and not other.plus and other.c and self.c % other.c == 0
        if not exact or self.b < other.b or self.l < other.l:
            raise Refused(f"computes with the length: ({self}) / ({other})")
        return Extent(self.c // other.c, self.b - other.b, self.l - other.l)

    def add(self, other: Extent, sign: int = 1) -> Extent:
        if other.fixed:
            return _sum(self, sign * (other.c + other.plus))
        if self.fixed and sign == 1:
            return _sum(other, self.c + self.plus)
        if sign == -1 and (self.c, self.b, self.l) == (other.c, other.b, other.l):
            return Extent(self.plus - other.plus)
        raise Refused(f"computes with the length: ({self}) {'+' if sign == 1 else '-'} ({other})")

    def __str__(self) -> str:
        symbols = "B" * self.b + "L" * self.l
        text = f"{self.c}{symbols}" if self.c != 1 or not symbols else symbols
        return f"{text}{self.plus:+}" if self.plus else text


def _sum(x: Extent, k: int) -> Extent:
    return Extent(x.c + x.plus + k) if x.fixed else Extent(x.c, x.b, x.l, x.plus + k)


ONE, BATCH, LENGTH = Extent(), Extent(b=1), Extent(l=1)
Extents = tuple[Extent, ...]


def words(shape: Iterable[Extent]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def product(shape: Iterable[Extent]) -> Extent:
    total = ONE
    for e in shape:
        total = total.times(e)
    return total


def broadcast(shapes: Sequence[Extents]) -> Extents:
    rank = max(map(len, shapes))
    out = [ONE] * rank
    for shape in shapes:
        for i, e in enumerate(shape, rank - len(shape)):
            if e != ONE and out[i] not in (ONE, e):
                raise Refused(f"shapes {', '.join(map(words, shapes))} need not go together for every length")
            out[i] = e if e != ONE else out[i]
    return tuple(out)


class Form(enum.Enum):
    """How the packed graph, over S sequences of T tokens together, holds a value v(s) that sequence s has alone (B = 1).

    uniform: v itself, equal for all; sequence: B becomes S, entry s is v(s); token: L becomes T and B 1, a sequence's
    tokens are v(s) one behind the other; pair: of two axes L the first becomes 1, the second Σ L², the matrices v(s)
    one behind the other; dims: integers known from the shapes, not held; ghost: only the content is known.
    """

    uniform = "uniform"
    sequence = "sequence"
    token = "token"
    pair = "pair"
    dims = "dims"
    ghost = "ghost"


@dataclass(frozen=True)
class Position:
    """The index along the axis L, plus a number."""

    plus: int = 0


@dataclass(frozen=True)
class BatchIndex:
    """The index along the axis B: 0 for a sequence alone."""


@dataclass(frozen=True)
class Stack:
    """Contents side by side along the last axis."""

    parts: tuple


@dataclass(frozen=True)
class Packed:
    """One value. shape: as in the original. vary: the same, with 1 where the values do not depend on the index, and so
    is what the packed value has. ints: of form dims."""

    form: Form
    shape: Extents
    value: ir.Value | None = None
    vary: Extents = ()
    content: object = None
    ints: Extents = ()
    dtype: ir.DataType | None = None
    origin: ir.Value | None = None

    def __post_init__(self) -> None:
        if len(self.vary) != len(self.shape):
            object.__setattr__(self, "vary", self.shape)

    def but(self, **changes) -> Packed:
        if "shape" in changes and "vary" not in changes:
            changes["vary"] = changes["shape"]
        return replace(self, **changes)

    def length_axes(self) -> list[int]:
        return [i for i, e in enumerate(self.vary) if e.l]

    def batch_axis(self) -> int | None:
        axes = [i for i, e in enumerate(self.shape) if e.b and not e.l]
        return axes[0] if len(axes) == 1 else None

    @property
    def dense(self) -> bool:
        """Whether the packed value has an element for every index of `shape` (B counts 1 beside L)."""
        beside = (ONE, BATCH) if self.form in (Form.token, Form.pair) else (ONE,)
        return all(v == s or (v in beside and s in beside) for v, s in zip(self.vary, self.shape))


def form_of(vary: Extents) -> Form:
    """The form of a value with these axes. Raises Refused for axes that no form has."""
    lengths = sum(1 for e in vary if e.l)
    for e in vary:
        if e.plus or (not e.fixed and e.c != 1) or e.b > 1 or e.l > 1:
            raise Refused(f"has an axis in {words(vary)} that mixes the length with something else")
    if lengths > 2:
        raise Refused(f"{words(vary)} has more than two axes along the sequence")
    if lengths:
        return Form.token if lengths == 1 else Form.pair
    batches = sum(1 for e in vary if e.b)
    if batches > 1:
        raise Refused(f"{words(vary)} has more than one batch axis")
    return Form.sequence if batches else Form.uniform
