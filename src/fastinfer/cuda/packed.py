# SPDX-License-Identifier: Apache-2.0
"""Batches without padding whose samples are tensors on the device already: nothing of them passes the host. Lengths do, since
the number of tokens is a shape."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from fastinfer.batching.many import token_groups
from fastinfer.batching.packing import AUXILIARY, Extent, PackedForm, Port, fillers, part_of, placed_behind
from fastinfer.cuda import native
from fastinfer.errors import InputError, UnsupportedError

Tensors = Sequence[torch.Tensor]


class DevicePacking:
    """A model's packed form (whose executor is cuda.executor's) over tensors on `device`."""

    def __init__(self, form: PackedForm, device: torch.device) -> None:
        self._form, self._device = form, device

    def extent(self, tensors: Tensors) -> Extent | None:
        """As PackedForm.extent."""
        return self._form.extent([_outline(t) for t in tensors])

    def run(self, feeds: Sequence[Tensors], extents: Sequence[Extent]) -> list[list[torch.Tensor]]:
        """As PackedForm.run; a feed's outputs are parts of the call's, not copies of them."""
        placed, lengths = placed_behind(extents)
        columns = []
        for i, port in enumerate(self._form.inputs):
            given = [tensors[i] for tensors in feeds]
            if port.form == "token":
                given = [a.reshape(1, a.shape[0] * a.shape[1], *a.shape[2:]) for a in given]
            columns.append(given)
        results = self._call(lengths, columns)
        return [[part_of(port, y, e, torch.moveaxis) for port, y in zip(self._form.outputs, results)] for e in placed]

    def run_padded(self, inputs: Mapping[str, torch.Tensor], lengths: Sequence[int]) -> list[torch.Tensor]:
        """Inputs [sequences, extent, …] (of a sequence as a whole: [sequences, …]), the outputs in the same form. What lies
        behind a sequence's end is not read; there, and for empty sequences, outputs are 0. Raises InputError."""
        extent = self._extent_of_padded(inputs, lengths)
        rows = Rows(np.asarray(lengths, np.int64), extent, self._device)
        columns = []
        for port in self._form.inputs:
            given = inputs[port.name].contiguous()
            columns.append([rows.pack(given)[None]] if port.form == "token" else [rows.not_empty(given)])
        results = self._call(rows.lengths[rows.lengths > 0], columns)
        return [self._padded(port, y, rows) for port, y in zip(self._form.outputs, results)]

    def _extent_of_padded(self, inputs: Mapping[str, torch.Tensor], lengths: Sequence[int]) -> int:
        named = {p.name for p in self._form.inputs}
        if inputs.keys() != named:
            raise InputError(f"inputs {', '.join(inputs)} were given; needed: {', '.join(sorted(named))}")
        shapes = {tuple(inputs[p.name].shape[: 2 if p.form == "token" else 1]) for p in self._form.inputs}
        tokens = [s for s in shapes if len(s) == 2]
        if len(tokens) != 1 or {s[0] for s in shapes} != {len(lengths)}:
            raise InputError(
                f"{len(lengths)} lengths, inputs that begin with {sorted(shapes)}; needed: [sequences, extent]"
            )
        if any(not 0 <= n <= tokens[0][1] for n in lengths) or not any(lengths):
            raise InputError(f"lengths {list(lengths)}; needed: 0 to {tokens[0][1]}, not all of them 0")
        for n in {n for n in lengths if n}:
            one = [inputs[p.name][:1, :n] if p.form == "token" else inputs[p.name][:1] for p in self._form.inputs]
            if self.extent(one) is None:
                raise InputError(
                    f"a sequence of {n} is none that the model takes: {', '.join(map(str, self._form.specs))}"
                )
        return tokens[0][1]

    def _padded(self, port: Port, y: torch.Tensor, rows: Rows) -> torch.Tensor:
        if port.form == "uniform":
            return y
        if port.form == "sequence":
            return rows.with_empty(y.movedim(port.axis, 0)).movedim(0, port.axis)
        if port.batch < 0:
            raise UnsupportedError(f"output '{port.name}' has no axis for the batch: it has no padded form")
        axis = port.axis - (port.batch < port.axis)
        padded = rows.unpack(y.squeeze(port.batch).movedim(axis, 0).contiguous())
        return padded.movedim(1, axis + 1).movedim(0, port.batch)

    def _call(self, lengths: np.ndarray, columns: list[list[torch.Tensor]]) -> list[torch.Tensor]:
        """columns: of each input what lies one behind the other; sequences of zeros make up a bucket, as on the host."""
        bucket = self._form.bucket
        own = np.zeros(0, np.int64) if bucket is None else fillers(int(lengths.sum()), len(lengths), bucket)
        joined = []
        for port, given in zip(self._form.inputs, columns, strict=True):
            axis, more = (1, int(own.sum())) if port.form == "token" else (0, len(own))
            if more and port.form != "uniform":
                shape = (*given[0].shape[:axis], more, *given[0].shape[axis + 1 :])
                given = [*given, given[0].new_zeros(shape)]
            joined.append(torch.cat(given, axis) if len(given) > 1 else given[0].contiguous())
        all_lengths = np.concatenate([lengths, own])
        auxiliary = [upload(AUXILIARY[name](all_lengths), self._device) for name in self._form.auxiliary]
        return self._form.executor.run_device([*auxiliary, *joined])  # type: ignore[attr-defined]


class Rows:
    """[sequences, extent, …] ↔ [total, …], in one launch of kernels/batching/ragged.cu; without it by an index. Which sequences
    are not empty is known on the host, so that nothing waits."""

    def __init__(self, lengths: np.ndarray, extent: int, device: torch.device) -> None:
        self.lengths, self._extent, self._native = lengths, extent, not native.missing(device)
        ends = np.cumsum(lengths)
        self._total = int(ends[-1])
        within = np.arange(self._total) - np.repeat(ends - lengths, lengths)
        index = np.repeat(np.arange(len(lengths)) * extent, lengths) + within
        where = np.concatenate([[0], ends]).astype(np.int32) if self._native else index
        self._where = upload(where, device)  # offsets, or the row that each packed one is in the padded tensor
        filled = np.flatnonzero(lengths)
        self._filled = None if len(filled) == len(lengths) else upload(filled, device)

    def pack(self, padded: torch.Tensor) -> torch.Tensor:
        if not self._native:
            return padded.reshape(-1, *padded.shape[2:])[self._where]
        packed = padded.new_empty((self._total, *padded.shape[2:]))
        native.pack_rows(padded, self._where, packed)
        return packed

    def unpack(self, packed: torch.Tensor) -> torch.Tensor:
        """packed: dense; rows behind the last sequence's are left out."""
        shape = len(self.lengths), self._extent, *packed.shape[1:]
        if self._native:
            padded = packed.new_empty(shape)
            native.unpack_rows(packed, self._where, padded)
            return padded
        padded = packed.new_zeros(shape)
        padded.view(-1, *packed.shape[1:])[self._where] = packed[: self._total]
        return padded

    def not_empty(self, given: torch.Tensor) -> torch.Tensor:
        return given if self._filled is None else given[self._filled]

    def with_empty(self, y: torch.Tensor) -> torch.Tensor:
        """[sequences that are not empty and more, …] → [sequences, …]."""
        if self._filled is None:
            return y[: len(self.lengths)]
        out = y.new_zeros((len(self.lengths), *y.shape[1:]))
        out[self._filled] = y[: len(self._filled)]
        return out


def upload(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """Behind the work on the current stream; the host does not wait."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def _outline(tensor: torch.Tensor) -> Any:
    """An array of the tensor's shape and type, without its elements."""
    name = str(tensor.dtype).removeprefix("torch.")
    return np.broadcast_to(np.zeros((), name), tuple(tensor.shape)) if name != "bfloat16" else None


def run_each(
    packing: DevicePacking, feeds: Sequence[Tensors], alone: Callable[[Tensors], list[torch.Tensor]]
) -> list[list[torch.Tensor] | Exception]:
    """The outputs of each feed, or what it raised: those that can be packed in few calls, the others alone. A call that fails is
    repeated feed by feed."""
    outcomes: dict[int, list[torch.Tensor] | Exception] = {}
    extents = {i: e for i, feed in enumerate(feeds) if (e := packing.extent(feed)) is not None}
    for group in token_groups(extents):
        with contextlib.suppress(Exception):  # each says for itself what is wrong
            results = packing.run([feeds[i] for i in group], [extents[i] for i in group])
            outcomes.update(zip(group, results, strict=True))
    for i, feed in enumerate(feeds):
        if i not in outcomes:
            try:
                outcomes[i] = alone(feed)
            except Exception as e:
                outcomes[i] = e
    return [outcomes[i] for i in range(len(feeds))]
