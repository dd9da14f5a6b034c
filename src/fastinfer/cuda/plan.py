# SPDX-License-Identifier: Apache-2.0
"""A DeviceProgram specialised to input shapes: steps over one arena, each value at a fixed offset. Shapes and known values
come from the C++ planner, offsets from its arena layout."""

from __future__ import annotations

import contextlib
import itertools
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from fastinfer import _core
from fastinfer.cuda.chains import bind_chain, find_chains
from fastinfer.cuda.checks import check_outputs
from fastinfer.cuda.context import Declined, Desc, Handle, Step
from fastinfer.cuda.device import INTERPRET
from fastinfer.cuda.dtypes import dtype_of_code, tensor_of
from fastinfer.cuda.node import Node
from fastinfer.cuda.program import DeviceProgram
from fastinfer.cuda.table import RENAMES, TABLE
from fastinfer.cuda.torch_ops import Call, find
from fastinfer.cuda.tuning import Tuner

# Triton's interpreter changes triton.language while it runs: one kernel at a time in a process.
_INTERPRETER = threading.Lock()


class NotPlannable(Exception):
    """Some shape depends on data, or a node runs on the host: the program runs node by node (dynamic.py)."""


@dataclass
class Storage:
    """Bytes that values share. offset -1: a tensor of its own (inputs, outputs), else in the arena."""

    bytes: int
    last_use: int
    offset: int = -1


@dataclass
class Value:
    desc: Desc
    known: np.ndarray | None = None
    root: int = -1  # of the storages; -1: not on the device yet (known ones, constants)


@dataclass
class Plan:
    steps: list[Step]
    inputs: list[torch.Tensor]  # buffers that a run copies into, in the program's order
    outputs: list[torch.Tensor]  # buffers that a run leaves results in
    arena_bytes: int
    kept: list[torch.Tensor] = field(default_factory=list)  # what handles point into

    def launch(self, which: slice = slice(None)) -> None:
        """Steps, in order, on the current stream."""
        with _INTERPRETER if INTERPRET else contextlib.nullcontext():
            self._launch(self.steps[which])

    @staticmethod
    def _launch(steps: list[Step]) -> None:
        for step in steps:
            step.run(*[h.tensor if h is not None else None for h in step.handles], **step.static)


class Planner:
    """One sweep over the nodes. What binders ask is in node.py."""

    def __init__(self, program: DeviceProgram, inputs: list[tuple[int, tuple[int, ...]]], tuner: Tuner) -> None:
        self.program, self.tuner = program, tuner
        self.values: dict[int, Value] = {}
        self.storages: list[Storage] = []
        self.handles: list[Handle] = []
        self.steps: list[Step] = []
        self._arena = _core.ArenaLayout()
        self._live: set[int] = set()  # storages in the arena that some value still needs
        self._uploaded: dict[int, Handle] = {}
        self._inputs: list[Handle] = []
        self.current = 0
        self._taken: set[int] = set()  # storages that an output leaves in
        shapes = program.shapes(inputs)
        if shapes["pivot"] >= 0:
            raise NotPlannable(f"{program.label(shapes['pivot'])}: {shapes['end']}")
        check_outputs(program.graph.outputs, shapes["values"])
        for value, (code, shape, known) in shapes["values"].items():
            self.values[value] = Value(program.desc(code, shape), known)
        for value, array in program.constants.items():
            self.values[value] = Value(program.desc(_core.dtype_code(array.dtype), array.shape), array)
        for port, (code, shape) in zip(program.graph.inputs, inputs, strict=True):
            self._take_input(port["value"], code, shape)
        self._chains = find_chains(self)

    def plan(self) -> Plan:
        """Raises NotPlannable."""
        for index in range(len(self.program.nodes)):
            self.current = index
            self._node(index)
            self._release(index)
        outputs = [self._output(port["value"], port["dtype"]) for port in self.program.graph.outputs]
        return self._finish(outputs)

    # ------------------------------------------------------------------------------------------------------------ values

    def _take_input(self, value: int, code: int, shape: tuple[int, ...]) -> None:
        """Inputs come as the graph types them; a first step turns them into what is stored."""
        desc = self.program.desc(code, shape)
        given = Desc(dtype_of_code(code), shape)
        buffer = self.handle(given, self._own(given.bytes))
        self._inputs.append(buffer)
        self.values[value] = Value(desc, None, buffer.root)
        if given != desc:
            self.values[value].root = self.take(desc.bytes, self.program.last_use.get(value, 0))
            stored = self.handle(desc, self.values[value].root)
            self.steps.append(Step(-1, "cast_input", _copy, (buffer, stored), {}))

    def _own(self, size: int) -> int:
        self.storages.append(Storage(size, len(self.program.nodes)))
        return len(self.storages) - 1

    def take(self, size: int, last_use: int) -> int:
        self.storages.append(Storage(size, last_use, self._arena.take(size)))
        self._live.add(len(self.storages) - 1)
        return len(self.storages) - 1

    def give_back(self, root: int) -> None:
        self._arena.release(self.storages[root].offset, self.storages[root].bytes)
        self._live.remove(root)

    def handle(self, desc: Desc, root: int) -> Handle:
        made = Handle(desc, None, root)
        self.handles.append(made)
        return made

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

    def where(self, value: int) -> Handle:
        v = self.values[value]
        return self.uploaded(value) if v.root < 0 else self.handle(v.desc, v.root)

    def define(self, value: int) -> Handle:
        """Room for an output of the node at hand."""
        v = self.values[value]
        last = self.program.last_use.get(value, self.current)
        v.root = self._own(v.desc.bytes) if last == len(self.program.nodes) else self.take(v.desc.bytes, last)
        return self.handle(v.desc, v.root)

    def alias(self, value: int, of: int) -> None:
        source, v = self.values[of], self.values[value]
        v.root = self.uploaded_root(of) if source.root < 0 else source.root
        storage = self.storages[v.root]
        storage.last_use = max(storage.last_use, self.program.last_use.get(value, -1))

    def uploaded_root(self, value: int) -> int:
        """A known value as a storage, so that others can share it."""
        handle = self.uploaded(value)
        if handle.root < 0:
            handle.root = self._own(handle.desc.bytes)
            self.handles.append(handle)
        return handle.root

    def _release(self, index: int) -> None:
        for root in [r for r in self._live if self.storages[r].last_use <= index]:
            self.give_back(root)

    # ------------------------------------------------------------------------------------------------------------- nodes

    def _node(self, index: int) -> None:
        node = self.program.nodes[index]
        outputs = [v for v in node["outputs"] if v >= 0]
        if all(v in self.values and self.values[v].known is not None for v in outputs):
            return  # shape arithmetic
        if missing := [v for v in outputs if v not in self.values]:
            raise NotPlannable(f"{self.program.label(index)}: the shape of value {missing[0]} is not known")
        key = node["domain"], node["op"]
        if key in RENAMES:
            self.alias(node["outputs"][0], node["inputs"][0])
            return
        if index in self._chains.inside:
            return
        if index in self._chains.starts:
            bind_chain(self, self._chains.starts[index])
            return
        refusals = [self._chains.refusals[index]] if index in self._chains.refusals else []
        for binder in TABLE.get(key, ()):
            context = Node(self, index)
            try:
                binder(context)
            except Declined as why:
                context.undo()
                refusals.append(str(why))
                continue
            self._with_refusals(index, refusals + context.refusals)
            context.end()
            return
        self._through_torch(index, refusals)

    def _with_refusals(self, index: int, refusals: list[str]) -> None:
        for step in itertools.takewhile(lambda s: s.node == index, reversed(self.steps)):
            step.refusals = refusals

    def _through_torch(self, index: int, refusals: list[str]) -> None:
        node, context = self.program.nodes[index], Node(self, index)
        run = find(node["domain"], node["op"])
        if run is None:
            raise NotPlannable(f"{self.program.label(index)}: no kernel, and torch has no form of it")
        given = [v >= 0 for v in node["inputs"]]
        known = [self.values[v].known if v >= 0 else None for v in node["inputs"]]
        attributes = self.program.attributes[index]
        handles = [self.where(v) if v >= 0 else None for v in node["inputs"]]
        outputs = [self.define(v) if v >= 0 else None for v in node["outputs"]]
        memo: dict[Any, Any] = {}  # small tables on the device, which a captured graph goes on reading

        def launch(*tensors: torch.Tensor | None) -> None:
            results = run(Call(node, tensors[: len(given)], known, attributes, memo=memo))
            made = [results] if isinstance(results, torch.Tensor) else results
            for out, result in zip(tensors[len(given) :], made):
                if out is not None and result is not None:
                    out.copy_(result)

        context.step(f"torch.{node['op']}", launch, *handles, *outputs)
        self._with_refusals(index, refusals)
        context.end()

    # --------------------------------------------------------------------------------------------------------------- end

    def _output(self, value: int, code: int) -> Handle:
        """Every output leaves in a tensor of its own, as the graph types it."""
        v = self.values[value]
        declared = Desc(dtype_of_code(code) if code else v.desc.dtype, v.desc.shape)
        fixed = {h.root for h in self._inputs} | self._taken
        if v.root >= 0 and self.storages[v.root].offset < 0 and v.root not in fixed and declared == v.desc:
            self._taken.add(v.root)
            return self.handle(v.desc, v.root)
        out = self.handle(declared, self._own(declared.bytes))
        self.steps.append(Step(-1, "copy_output", _copy, (self.where(value), out), {}))
        return out

    def _finish(self, outputs: list[Handle]) -> Plan:
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
                block = blocks[handle.root][: handle.desc.bytes]
                handle.tensor = block.view(handle.desc.dtype).view(handle.desc.shape)
        return Plan(
            self.steps, [_tensor(h) for h in self._inputs], [_tensor(h) for h in outputs], self._arena.bytes,
            [arena, *blocks.values()],
        )  # fmt: skip


def _tensor(handle: Handle) -> torch.Tensor:
    assert handle.tensor is not None
    return handle.tensor


def _copy(source: torch.Tensor, target: torch.Tensor) -> None:
    target.copy_(source)


def make_plan(program: DeviceProgram, inputs: list[tuple[int, tuple[int, ...]]], tuner: Tuner) -> Plan:
    """Raises NotPlannable, InputError."""
    return Planner(program, inputs, tuner).plan()
