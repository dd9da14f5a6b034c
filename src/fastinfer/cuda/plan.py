# SPDX-License-Identifier: Apache-2.0
"""A DeviceProgram specialised to input shapes: steps over one arena, each value at a fixed offset. Shapes and known values
come from the C++ planner, offsets from its arena layout."""

from __future__ import annotations

import contextlib
import itertools
import threading
from dataclasses import dataclass, field
from typing import Any

import torch

from fastinfer import _core
from fastinfer.cuda.chains import bind_chain, find_chains
from fastinfer.cuda.checks import check_outputs
from fastinfer.cuda.context import Declined, Handle, Step
from fastinfer.cuda.device import INTERPRET
from fastinfer.cuda.node import Node
from fastinfer.cuda.program import DeviceProgram
from fastinfer.cuda.siblings import bind_siblings, find_siblings
from fastinfer.cuda.table import RENAMES, TABLE
from fastinfer.cuda.torch_ops import Call, NotStatic, TorchOp, find
from fastinfer.cuda.tuning import Tuner
from fastinfer.cuda.values import Values
from fastinfer.errors import UnsupportedError

# Triton's interpreter changes triton.language while it runs: one kernel at a time in a process.
_INTERPRETER = threading.Lock()


class NotPlannable(Exception):
    """Some shape depends on data, or a node runs on the host: the program runs node by node (dynamic.py)."""


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


class Planner(Values):
    """One sweep over the nodes. What binders ask is in node.py."""

    def __init__(self, program: DeviceProgram, inputs: list[tuple[int, tuple[int, ...]]], tuner: Tuner) -> None:
        super().__init__(program, tuner)
        shapes = program.shapes(inputs)
        if shapes["pivot"] >= 0:
            raise NotPlannable(f"{program.label(shapes['pivot'])}: {shapes['end']}")
        check_outputs(program.graph.outputs, shapes["values"])
        for value, (code, shape, known) in shapes["values"].items():
            self.declare(value, code, shape, known)
        for value, array in program.constants.items():
            self.declare(value, _core.dtype_code(array.dtype), array.shape, array)
        for port, (code, shape) in zip(program.graph.inputs, inputs, strict=True):
            self.take_input(port["value"], code, shape)
        self._chains = find_chains(self)
        self._siblings = find_siblings(self, self._chains.inside | self._chains.starts.keys())

    def plan(self) -> Plan:
        """Raises NotPlannable."""
        for index in range(len(self.program.nodes)):
            self.current = index
            self._node(index)
            self.release(index)
        outputs = [self.output(port["value"], port["dtype"]) for port in self.program.graph.outputs]
        kept = self.settle()
        inputs = [_tensor(h) for h in self._inputs]
        return Plan(self.steps, inputs, [_tensor(h) for h in outputs], self._arena.bytes, kept)

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
        if index in self._chains.inside | self._siblings.inside:
            return
        if index in self._siblings.starts:
            bind_siblings(self, self._siblings.starts[index])
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
        outputs = [self.define(v, wide=True) if v >= 0 else None for v in node["outputs"]]
        memo: dict[Any, Any] = {}  # small tables on the device, which a captured graph goes on reading

        def launch(*tensors: torch.Tensor | None) -> None:
            results = _by_torch(run, Call(node, tensors[: len(given)], known, attributes, memo=memo))
            made = [results] if isinstance(results, torch.Tensor) else results
            for out, result in zip(tensors[len(given) :], made):
                if out is not None and result is not None:
                    out.copy_(result)

        context.step(f"torch.{node['op']}", launch, *handles, *outputs)
        self._with_refusals(index, refusals)
        context.end()


def _by_torch(run: TorchOp, call: Call) -> Any:
    """Raises NotStatic for what torch does not take: types without a CUDA kernel, reading back within a capture."""
    try:
        return run(call)
    except (torch.OutOfMemoryError, NotStatic, UnsupportedError):
        raise
    except (RuntimeError, NotImplementedError, TypeError, IndexError, ValueError) as e:
        raise NotStatic(f"torch refuses {call.node['op']}: {str(e).splitlines()[0]}") from e


def _tensor(handle: Handle) -> torch.Tensor:
    assert handle.tensor is not None
    return handle.tensor


def make_plan(program: DeviceProgram, inputs: list[tuple[int, tuple[int, ...]]], tuner: Tuner) -> Plan:
    """Raises NotPlannable, InputError."""
    return Planner(program, inputs, tuner).plan()
