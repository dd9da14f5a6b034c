# SPDX-License-Identifier: Apache-2.0
"""Feeds of different lengths → the arrays of one packed call, and its results → those of each feed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fastinfer.errors import ModelError
from fastinfer.tensors import TensorSpec


@dataclass(frozen=True)
class Port:
    """How an input or output lies in the packed form: see fastinfer.passes.pack_sequences.PackedPort."""

    name: str
    form: str
    axis: int
    batch: int

    @staticmethod
    def of(note: Mapping[str, Any]) -> Port:
        port = Port(str(note["name"]), str(note["form"]), int(note["axis"]), int(note["batch"]))
        if port.form not in ("token", "sequence", "uniform"):
            raise ModelError(f"'{port.name}' has the packed form '{port.form}'")
        return port


@dataclass(frozen=True)
class Extent:
    """A feed's rows (sequences of one length), their length, and where they lie among all tokens and sequences."""

    rows: int
    length: int
    token: int = 0
    sequence: int = 0


class PackedExecutor(Protocol):
    """What runs the packed program."""

    def run(self, arrays: Sequence[Any]) -> list[Any]: ...
    def trim(self) -> None: ...


class PackedForm:
    """The packed program of a model. Made once; several threads may run it at once."""

    def __init__(
        self, notes: Mapping[str, Any], executor: PackedExecutor, ports: Sequence[dict[str, Any]],
        bucket: Callable[[int], int] | None = None,
    ) -> None:  # fmt: skip
        """ports: the model's inputs, as its program describes them. bucket: how many tokens to make of
        so many, where the program costs something for each new number of them: made up by sequences that nobody asked for."""
        specs = [TensorSpec.from_port(p) for p in ports]
        self.inputs = [Port.of(n) for n in notes["inputs"]]
        self.outputs = [Port.of(n) for n in notes["outputs"]]
        self.auxiliary = [str(n) for n in notes["auxiliary"]]
        if [p.name for p in self.inputs] != [s.name for s in specs] or not set(self.auxiliary) <= set(AUXILIARY):
            raise ModelError("the packed form does not go with the model's inputs")
        self.specs = list(specs)
        self._symbols = [_symbols(p) for p in ports]
        self.executor = executor
        # Pairs of tokens are as many as the squares of the lengths: no bucket holds them.
        self.bucket = bucket if not {"queries", "keys"} & set(self.auxiliary) else None

    def extent(self, arrays: Sequence[Any]) -> Extent | None:
        """Rows and length of one feed; None when it cannot be packed (the model then says what is wrong with it)."""
        rows = length = None
        for port, spec, a in zip(self.inputs, self.specs, arrays, strict=True):
            if not isinstance(a, np.ndarray) or str(a.dtype) != spec.dtype or a.ndim != len(spec.shape or ()):
                return None
            if any(isinstance(d, int) and d != n for d, n in zip(spec.shape or (), a.shape)):
                return None
            if a.shape[0] != (a.shape[0] if rows is None else rows):
                return None
            rows = a.shape[0]
            if port.form == "token":
                if a.shape[1] != (a.shape[1] if length is None else length):
                    return None
                length = a.shape[1]
        return Extent(rows, length) if rows and length and self._in_range(arrays) else None

    def _in_range(self, arrays: Sequence[np.ndarray]) -> bool:
        """Whether free extents of one name are equal and within their range; the model alone refuses others."""
        seen: dict[str, int] = {}
        for names, a in zip(self._symbols, arrays, strict=True):
            for axis, name, least, greatest in names:
                n = a.shape[axis]
                if seen.setdefault(name, n) != n or n < least or (greatest is not None and n > greatest):
                    return False
        return True

    def run(self, feeds: Sequence[Sequence[np.ndarray]], extents: Sequence[Extent]) -> list[list[np.ndarray]]:
        """The outputs of each feed. Raises FastinferError when any of them fails."""
        placed, lengths = placed_behind(extents)
        joined = [_join(port, [arrays[i] for arrays in feeds]) for i, port in enumerate(self.inputs)]
        if self.bucket is not None:
            lengths, joined = self._filled(lengths, joined, self.bucket)
        results = self.executor.run([*(AUXILIARY[name](lengths) for name in self.auxiliary), *joined])
        return [[_part(port, y, e) for port, y in zip(self.outputs, results)] for e in placed]

    def _filled(
        self, lengths: np.ndarray, joined: list[np.ndarray], bucket: Callable[[int], int]
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Sequences of zeros behind the callers', none of them empty: what reads a sequence's first token finds one."""
        own = fillers(int(lengths.sum()), len(lengths), bucket)
        more = {"token": (1, int(own.sum())), "sequence": (0, len(own))}
        filled = []
        for port, a in zip(self.inputs, joined, strict=True):
            if port.form in more:
                axis, n = more[port.form]
                a = np.concatenate([a, np.zeros((*a.shape[:axis], n, *a.shape[axis + 1 :]), a.dtype)], axis)
            filled.append(a)
        return np.concatenate([lengths, own]), filled


def placed_behind(extents: Sequence[Extent]) -> tuple[list[Extent], np.ndarray]:
    """Feeds one behind the other: where each lies, and the lengths of all their sequences."""
    placed, token, sequence = [], 0, 0
    for e in extents:
        placed.append(Extent(e.rows, e.length, token, sequence))
        token += e.rows * e.length
        sequence += e.rows
    return placed, np.repeat(np.array([e.length for e in placed], np.int64), [e.rows for e in placed])


FILLER = 64  # tokens of one made-up sequence: attention costs their squares


def fillers(tokens: int, sequences: int, bucket: Callable[[int], int]) -> np.ndarray:
    """Lengths of further sequences, so that tokens are as many as a bucket holds and sequences a power of two: an executor makes
    a plan for each pair, and sequences cost little where tokens are given."""
    whole = bucket(tokens)
    while True:
        left = whole - tokens
        count = (1 << (sequences + -(-left // FILLER) - 1).bit_length()) - sequences
        if count == 0 and left == 0:
            return np.zeros(0, np.int64)
        if 0 < count <= left:
            return np.array([left // count + (i < left % count) for i in range(count)], np.int64)
        whole = bucket(whole + 1)


def _symbols(port: Mapping[str, Any]) -> list[tuple[int, str, int, int | None]]:
    """(axis, name, least, greatest) of the free extents that have a name."""
    ranges = port.get("ranges") or {}
    named = [(i, d) for i, d in enumerate(port["dims"] or ()) if isinstance(d, str) and d and not d.startswith("?")]
    return [(i, d, *ranges.get(d, (0, None))) for i, d in named]


def _join(port: Port, arrays: list[np.ndarray]) -> np.ndarray:
    if port.form == "token":
        arrays = [a.reshape(1, a.shape[0] * a.shape[1], *a.shape[2:]) for a in arrays]
        return np.concatenate(arrays, axis=1)
    return np.concatenate(arrays, axis=0)


def _part(port: Port, y: np.ndarray, e: Extent) -> np.ndarray:
    return y.copy() if port.form == "uniform" else np.ascontiguousarray(part_of(port, y, e, np.moveaxis))


def part_of(port: Port, y: Any, e: Extent, moveaxis: Callable[[Any, int, int], Any]) -> Any:
    """What of an output is one feed's, as a view; y: an array or a tensor, with its library's moveaxis."""
    if port.form == "uniform":
        return y
    before = (slice(None),) * port.axis
    if port.form == "sequence":
        return y[(*before, slice(e.sequence, e.sequence + e.rows))]
    if port.batch == NOWHERE:
        return y[(*before, slice(e.token, e.token + e.length))]
    part = y[(*before, slice(e.token, e.token + e.rows * e.length))]
    if port.batch == MERGED or e.rows == 1:
        return part
    axis = port.axis - (port.batch < port.axis)
    part = part.squeeze(port.batch)
    part = part.reshape(*part.shape[:axis], e.rows, e.length, *part.shape[axis + 1 :])
    return moveaxis(part, axis, port.batch)


NOWHERE, MERGED = -1, -2  # Port.batch


def _first(lengths: np.ndarray) -> np.ndarray:
    return np.cumsum(lengths) - lengths


def _positions(lengths: np.ndarray) -> np.ndarray:
    return np.arange(lengths.sum()) - np.repeat(_first(lengths), lengths)


def _pairs(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    squares = lengths * lengths
    inside = _positions(squares)
    first, each = np.repeat(_first(lengths), squares), np.repeat(lengths, squares)
    return first + inside // each, first + inside % each


# All int64; what they are: fastinfer.passes.packing.translate.AUXILIARY.
AUXILIARY = {
    "lengths": lambda n: n,
    "first": _first,
    "last": lambda n: np.cumsum(n) - 1,
    "positions": _positions,
    "sequence": lambda n: np.repeat(np.arange(len(n)), n),
    "queries": lambda n: _pairs(n)[0],
    "keys": lambda n: _pairs(n)[1],
}
