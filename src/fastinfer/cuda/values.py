# SPDX-License-Identifier: Apache-2.0
"""The values of a plan: where each lies, in which type, and for how long.

A value that the graph types float32 is stored as the precision says. But the model's inputs come as float32 and its outputs
leave so: such a value is held as float32, and kernels that convert as they load and store (Node.input and output with
wide=True) use it as it is. For the others one step makes the stored form, when the first of them asks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from fastinfer import _core
from fastinfer.cuda.context import Desc, Handle, Step
from fastinfer.cuda.dtypes import dtype_of_code, tensor_of
from fastinfer.cuda.ops.convert import conversion
from fastinfer.cuda.program import DeviceProgram
from fastinfer.cuda.tuning import Tuner


@dataclass
class Storage:
    """Bytes that values share. offset -1: a tensor of its own (inputs, outputs), else in the arena."""

    bytes: int
    last_use: int
    offset: int = -1


@dataclass
class Value:
    """desc: as values are stored between steps. typed: as the graph types it. held: what lies at root; narrow: the storage of
    desc.dtype that was made of it, where they differ."""

    desc: Desc
    known: np.ndarray | None
    typed: torch.dtype
    held: torch.dtype
    root: int = -1  # of the storages; -1: not on the device yet (known ones, constants)
    at: int = 0  # bytes from where the storage begins
    narrow: int = -1

    @property
    def whole(self) -> Desc:
        return Desc(self.held, self.desc.shape)


class Values:
    """What the planner knows of them."""

    def __init__(self, program: DeviceProgram, tuner: Tuner) -> None:
        self.program, self.tuner = program, tuner
        self.values: dict[int, Value] = {}
        self.storages: list[Storage] = []
        self.handles: list[Handle] = []
        self.steps: list[Step] = []
        self.narrowed: list[int] = []  # values, in the order in which their stored form was made
        self.current = 0  # node
        self._arena = _core.ArenaLayout()
        self._live: set[int] = set()  # storages in the arena that some value still needs
        self._uploaded: dict[int, Handle] = {}
        self._inputs: list[Handle] = []
        self._taken: set[int] = set()  # storages that an output leaves in

    def declare(self, value: int, code: int, shape: tuple[int, ...], known: np.ndarray | None) -> None:
        desc = self.program.desc(code, shape)
        self.values[value] = Value(desc, known, dtype_of_code(code), desc.dtype)

    def take_input(self, value: int, code: int, shape: tuple[int, ...]) -> None:
        """Inputs come as the graph types them."""
        given = Desc(dtype_of_code(code), shape)
        buffer = self.handle(given, self.own(given.bytes))
        self._inputs.append(buffer)
        self.declare(value, code, shape, None)
        self.values[value].held, self.values[value].root = given.dtype, buffer.root

    # ------------------------------------------------------------------------------------------------------------ memory

    def own(self, size: int) -> int:
        self.storages.append(Storage(size, len(self.program.nodes)))
        return len(self.storages) - 1

    def take(self, size: int, last_use: int) -> int:
        self.storages.append(Storage(size, last_use, self._arena.take(size)))
        self._live.add(len(self.storages) - 1)
        return len(self.storages) - 1

    def give_back(self, root: int) -> None:
        self._arena.release(self.storages[root].offset, self.storages[root].bytes)
        self._live.remove(root)

    def release(self, index: int) -> None:
        """What node `index` was the last to need."""
        for root in [r for r in self._live if self.storages[r].last_use <= index]:
            self.give_back(root)

    def handle(self, desc: Desc, root: int, at: int = 0) -> Handle:
        made = Handle(desc, None, root, at)
        self.handles.append(made)
        return made

    # ------------------------------------------------------------------------------------------------------------ values

    def uploaded(self, value: int) -> Handle:
        """A value that is known on the host, for a kernel that wants it on the device."""
        if value not in self._uploaded:
            v, p = self.values[value], self.program
            if value in p.constants:
                tensor = p.constant(value, "", None, v.desc.dtype)
            else:
                assert v.known is not None
                tensor = tensor_of(v.known, v.desc.dtype, p.device.torch)
            self._uploaded[value] = Handle(v.desc, tensor)
        return self._uploaded[value]

    def where(self, value: int, wide: bool = False) -> Handle:
        """wide: as it is held; else as it is stored between steps."""
        v = self.values[value]
        if v.root < 0:
            return self.uploaded(value)
        if wide or v.held == v.desc.dtype:
            return self.handle(v.whole, v.root, v.at)
        if v.narrow < 0:
            v.narrow = self.take(v.desc.bytes, max(self.program.last_use.get(value, 0), self.current))
            self.narrowed.append(value)
            self.convert("cast_input", self.handle(v.whole, v.root), self.handle(v.desc, v.narrow))
        return self.handle(v.desc, v.narrow)

    def widen_again(self, count: int) -> None:
        """Drops the stored forms that were made after the first `count`, and their steps, which are the plan's last."""
        for value in self.narrowed[count:]:
            self.give_back(self.values[value].narrow)
            self.values[value].narrow = -1
            self.steps.pop()
        del self.narrowed[count:]

    def convert(self, name: str, x: Handle, y: Handle) -> None:
        run, static = conversion(x.desc, y.desc, self.tuner.choose)
        self.steps.append(Step(-1, name, run, (x, y), static))

    def define(self, value: int, wide: bool = False) -> Handle:
        """Room for an output of the node at hand. wide: the kernel stores whatever type it finds there."""
        v = self.values[value]
        leaves = self.program.leaves
        v.held = v.typed if wide and leaves.get(value) == v.typed else v.desc.dtype
        last = self.program.last_use.get(value, self.current)
        v.root = self.own(v.whole.bytes) if value in leaves else self.take(v.whole.bytes, last)
        return self.handle(v.whole, v.root)

    def define_together(self, values: list[int]) -> Handle:
        """Room for values of one shape, none of which is an output of the model, one behind the other: all of them."""
        desc = self.values[values[0]].desc
        root = self.take(len(values) * desc.bytes, max(self.program.last_use.get(v, self.current) for v in values))
        for k, value in enumerate(values):
            self.values[value].root, self.values[value].at = root, k * desc.bytes
        return self.handle(Desc(desc.dtype, (len(values), *desc.shape)), root)

    def undefine(self, value: int) -> None:
        v = self.values[value]
        if self.storages[v.root].offset >= 0:
            self.give_back(v.root)
        v.root, v.held = -1, v.desc.dtype

    def alias(self, value: int, of: int) -> None:
        source, v = self.values[of], self.values[value]
        v.root = self._uploaded_root(of) if source.root < 0 else source.root
        v.held, v.narrow, v.at = source.held, source.narrow, source.at
        for root in (v.root, v.narrow):
            if root >= 0:
                storage = self.storages[root]
                storage.last_use = max(storage.last_use, self.program.last_use.get(value, -1))

    def _uploaded_root(self, value: int) -> int:
        """A known value as a storage, so that others can share it."""
        handle = self.uploaded(value)
        if handle.root < 0:
            handle.root = self.own(handle.desc.bytes)
            self.handles.append(handle)
        return handle.root

    # --------------------------------------------------------------------------------------------------------------- end

    def output(self, value: int, code: int) -> Handle:
        """Every output leaves in a tensor of its own, as the graph types it."""
        v = self.values[value]
        declared = Desc(dtype_of_code(code) if code else v.desc.dtype, v.desc.shape)
        fixed = {h.root for h in self._inputs} | self._taken
        if v.root >= 0 and self.storages[v.root].offset < 0 and v.root not in fixed and declared == v.whole:
            self._taken.add(v.root)
            return self.handle(v.whole, v.root)
        out = self.handle(declared, self.own(declared.bytes))
        self.convert("copy_output", self.where(value, wide=True), out)
        return out

    def settle(self) -> list[torch.Tensor]:
        """Memory of all handles: the arena, then the blocks beside it."""
        device = self.program.device.torch
        arena = torch.empty(max(self._arena.bytes, 1), dtype=torch.uint8, device=device)
        blocks: dict[int, torch.Tensor] = {}
        for handle in self.handles:
            if handle.tensor is not None and handle.root >= 0:
                blocks[handle.root] = handle.tensor.view(-1).view(torch.uint8)
        for root, storage in enumerate(self.storages):
            if root not in blocks:
                at, size = storage.offset, storage.bytes
                own = at < 0
                blocks[root] = torch.empty(size, dtype=torch.uint8, device=device) if own else arena[at : at + size]
        for handle in self.handles:
            if handle.tensor is None:
                block = blocks[handle.root][handle.at : handle.at + handle.desc.bytes]
                handle.tensor = block.view(handle.desc.dtype).view(handle.desc.shape)
        return [arena, *blocks.values()]
