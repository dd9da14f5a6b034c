# SPDX-License-Identifier: Apache-2.0
"""A pointwise program as the text of one Triton kernel, and that text as a kernel."""

from __future__ import annotations

import functools
import hashlib
import linecache
from dataclasses import dataclass
from typing import Any

import triton

from fastinfer.cuda.kernels.pointwise_math import NAMES, kind_of, text_of
from fastinfer.cuda.kernels.pointwise_walk import Walk


@dataclass(frozen=True)
class Program:
    """kinds: of the inputs: "f" (float32, or bytes as their numbers), "b", "i" (integers as they are). ops, args, outputs: as
    the attributes of fastinfer.Pointwise; results[i]: kind of op i. scalars: inputs that are numbers given at launch."""

    kinds: tuple[str, ...]
    ops: tuple[str, ...]
    args: tuple[int, ...]
    outputs: tuple[int, ...]
    scalars: frozenset[int] = frozenset()

    def results(self) -> list[str]:
        """Kinds of the inputs, then of the ops. Raises ValueError where an operation has no such operands."""
        kinds = list(self.kinds)
        for i, name in enumerate(self.ops):
            kinds.append(kind_of(name, [kinds[k] for k in self.operands(i)])[1])
        return kinds

    def operands(self, i: int) -> list[int]:
        return [k for k in self.args[3 * i : 3 * i + 3] if k >= 0]

    def output_kinds(self) -> list[str]:
        kinds = self.results()
        return [kinds[len(self.kinds) + k] for k in self.outputs]


Limit = tuple[float, float] | float | None


@dataclass(frozen=True)
class Form:
    """What of a walk the text depends on. units[k][d]: operand k's stride along d: 0 none, -1 one element, else the power of
    two (up to 16) that divides it; offsets[k] likewise; inner: the same of the last extent. limits: of the results, (low, high)
    of bytes, the largest number of a half that is not to become infinite."""

    units: tuple[tuple[int, ...], ...]
    offsets: tuple[int, ...]
    inner: int
    wide: bool
    limits: tuple[Limit, ...]


def unit(n: int) -> int:
    """The power of two up to 16 that divides n; 2 says as little as 1, as it makes no vector."""
    u = min(n & -n, 16) if n else 16
    return 1 if u == 2 else u


def form_of(walk: Walk, limits: tuple[Limit, ...]) -> Form:
    last = len(walk.extents) - 1
    units = tuple(
        tuple(0 if s == 0 else -1 if s == 1 and d == last else unit(s) for d, s in enumerate(strides))
        for strides in walk.strides
    )
    return Form(
        units, tuple(unit(o) if o else 0 for o in walk.offsets), unit(walk.extents[-1]), walk.wide, limits
    )  # fmt: skip


class _Text:
    def __init__(self, program: Program, form: Form) -> None:
        self.program, self.form = program, form
        self.rank = len(form.units[0])
        self.tensors = [k for k in range(len(program.kinds)) if k not in program.scalars]
        self.names = [f"x{k}" for k in self.tensors] + [f"y{j}" for j in range(len(program.outputs))]

    def strides(self) -> list[tuple[str, int]]:
        """(argument, unit) of every number that the host gives besides extents."""
        found = [
            (f"{name}_s{d}", u)
            for name, units in zip(self.names, self.form.units)
            for d, u in enumerate(units)
            if u > 0
        ]
        return found + [(f"{name}_o", u) for name, u in zip(self.names, self.form.offsets) if u > 0]

    def kernel(self) -> str:
        numbers = [f"c{k}" for k in sorted(self.program.scalars)]
        extents = [f"e{d}" for d in range(1, self.rank - 1)]
        given = [*self.names, *numbers, "rows", "cols", *extents, *(name for name, _ in self.strides())]
        constants = ["BLOCK"] if self.rank == 1 else ["ROWS", "COLS"]
        head = f"def pointwise({', '.join(given)}, {', '.join(c + ': tl.constexpr' for c in constants)}):"
        scaled = [f"{name} = {name} * {u}" for name, u in [("cols", self.form.inner), *self.strides()] if u in (4, 8)]
        filled = [f"{c} = tl.full({self.single()}, {c}, tl.float32)" for c in numbers]
        lines = [*scaled, *filled, *(self.line() if self.rank == 1 else self.plane())]
        return "\n".join([head, *("    " + line for line in lines), ""])

    def line(self) -> list[str]:
        """One dimension. Where a mask could split vectors (an odd length), only the last program has one."""
        to_wide = ".to(tl.int64)" if self.form.wide else ""
        start = [f"first = tl.program_id(0){to_wide} * BLOCK", "col = first + tl.arange(0, BLOCK)"]
        masked = self.body("col < cols")
        if self.form.inner >= 4:
            return start + masked
        whole = ["    " + x for x in self.body("")]
        return [*start, "if first + BLOCK <= cols:", *whole, "else:", *("    " + x for x in masked)]

    def plane(self) -> list[str]:
        """Rows (all dimensions but the last, taken apart once per row) by columns."""
        wide = ".to(tl.int64)" if self.form.wide else ""
        lines = [
            "blocks = tl.cdiv(cols, COLS)",
            "pid = tl.program_id(0)",
            f"row = ((pid // blocks){wide} * ROWS + tl.arange(0, ROWS))[:, None]",
            "col = ((pid % blocks) * COLS + tl.arange(0, COLS))[None, :]",
            "rest = row",
        ]
        for d in range(self.rank - 2, 0, -1):
            lines += [f"i{d} = rest % e{d}", f"rest = rest // e{d}"]
        return [*lines, "i0 = rest", *self.body("(row < rows) & (col < cols)")]

    def address(self, at: int) -> str:
        """Of operand `at` (of names)."""
        name, units, terms = self.names[at], self.form.units[at], []
        for d, u in enumerate(units):
            index = "col" if d == self.rank - 1 else f"i{d}"
            if u:
                terms.append(index if u < 0 else f"{index} * {name}_s{d}")
        terms = terms or [f"tl.zeros({self.single()}, tl.int32)"]
        if self.form.offsets[at]:
            terms.insert(0, f"{name}_o")
        return f"{name} + ({' + '.join(terms)})"

    def single(self) -> str:
        """The shape of one number: scalars are tensors too, which the interpreter wants."""
        return "(1,)" if self.rank == 1 else "(1, 1)"

    def mask(self, at: int, whole: str) -> str:
        """What of the mask operand `at` needs: one that is the same along the columns is read once per row."""
        if not whole or self.rank == 1:
            return whole if self.form.units[at][-1] else ""
        rows = any(self.form.units[at][:-1])
        cols = self.form.units[at][-1] != 0
        return whole if rows and cols else "row < rows" if rows else "col < cols" if cols else ""

    def body(self, mask: str) -> list[str]:
        p, lines = self.program, []
        kinds = p.results()
        values = [f"c{k}" if k in p.scalars else f"v{k}" for k in range(len(p.kinds))]
        for at, k in enumerate(self.tensors):
            m = self.mask(at, mask)
            to = {"f": ".to(tl.float32)", "b": ".to(tl.int1)", "i": ""}[p.kinds[k]]
            lines.append(f"v{k} = tl.load({self.address(at)}{', mask=' + m + ', other=0' if m else ''}){to}")
        for i, name in enumerate(p.ops):
            operands = p.operands(i)
            common = kind_of(name, [kinds[k] for k in operands])[0]
            values.append(f"v{len(p.kinds) + i}")
            lines.append(f"{values[-1]} = {text_of(name, common, [values[k] for k in operands])}")
        for j, k in enumerate(p.outputs):
            lines += self.store(j, values[len(p.kinds) + k], mask)
        return lines

    def store(self, j: int, value: str, mask: str) -> list[str]:
        at, limit = len(self.tensors) + j, self.form.limits[j]
        if isinstance(limit, tuple):
            value = f"tl.minimum(tl.maximum({value}, {limit[0]}), {limit[1]})"
        elif limit is not None:
            value = f"_bounded({value}, {limit})"
        return [f"tl.store({self.address(at)}, ({value}).to(y{j}.dtype.element_ty){', mask=' + mask if mask else ''})"]


def source(program: Program, form: Form) -> str:
    return _Text(program, form).kernel()


@functools.lru_cache(maxsize=4096)
def kernel(program: Program, form: Form) -> Any:
    """The kernel; its text is kept in linecache, where triton (by inspect) looks for it."""
    text = source(program, form)
    file = f"<fastinfer pointwise {hashlib.sha256(text.encode()).hexdigest()[:16]}>"
    linecache.cache[file] = (len(text), None, text.splitlines(True), file)
    scope: dict[str, Any] = {**NAMES, "__name__": "fastinfer.cuda.kernels.generated"}
    exec(compile(text, file, "exec"), scope)
    return triton.jit(scope["pointwise"])


def numbers(walk: Walk, form: Form) -> list[int]:
    """The kernel's integers in its order: rows, cols, middle extents, strides, offsets; each over its unit where that is 4 or 8."""

    def over(n: int, u: int) -> int:
        return n // u if u in (4, 8) else n

    rows = walk.elements // max(walk.extents[-1], 1)
    strides = [over(s, u) for units, strides in zip(form.units, walk.strides) for s, u in zip(strides, units) if u > 0]
    offsets = [over(o, u) for o, u in zip(walk.offsets, form.offsets) if u > 0]
    return [rows, over(walk.extents[-1], form.inner), *walk.extents[1:-1], *strides, *offsets]
