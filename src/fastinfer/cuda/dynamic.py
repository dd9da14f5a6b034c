# SPDX-License-Identifier: Apache-2.0
"""A program node by node: for models whose shapes depend on data, or with control flow, sequences, strings. Slower than a
plan (nothing is captured, torch allocates), but any valid model runs.

A value is a tensor on the device, an array on the host, a list (a sequence), None (an empty optional) or a dict (a map).
What only small constants, shapes and small host results decide (up to ON_HOST elements) is computed on the host, in the
types of the graph: shape arithmetic needs neither launches nor round trips. All else is on the device as the precision says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from fastinfer.cuda.control import CONTROL
from fastinfer.cuda.dtypes import dtype_of_code, narrowed, stored, to_numpy, to_torch
from fastinfer.cuda.host_node import HostNode
from fastinfer.cuda.program import DeviceProgram
from fastinfer.cuda.torch_ops import Call, find
from fastinfer.cuda.torch_ops.casts import cast
from fastinfer.cuda.torch_ops.sequences import SEQUENCES
from fastinfer.errors import UnsupportedError
from fastinfer.program import Graph

ON_HOST = 64
_OPAQUE = 255


class Dynamic:
    """host_nodes: index of a node of the main graph → why it (or a node of its bodies) ran on the host."""

    def __init__(self, program: DeviceProgram) -> None:
        self.program = program
        self.device = program.device.torch
        self.tensors = program.tensors
        self.host_nodes: dict[int, str] = {}
        self.main = Body(self, program.graph, program.attributes)

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """Inputs in the program's order: tensors, arrays, lists, None. Outputs: tensors on the device as the graph types
        them; arrays where torch has no such type. Raises InputError, UnsupportedError."""
        values = self.main.run([self.placed(v) for v in inputs])
        return [self._leaving(v, port["dtype"]) for v, port in zip(values, self.main.graph.outputs, strict=True)]

    def placed(self, value: Any) -> Any:
        """A value as it is kept here."""
        if isinstance(value, list | tuple):
            return [self.placed(v) for v in value]
        if isinstance(value, np.ndarray | np.generic):
            value = np.asarray(value)
            try:
                return value if value.size <= ON_HOST and value.dtype.kind in "iub" else self.placed(to_torch(value))
            except UnsupportedError:
                return value
        if isinstance(value, torch.Tensor):
            small_host = value.device.type == "cpu" and self.device.type != "cpu" and value.numel() <= ON_HOST
            if small_host and not value.is_floating_point():
                return value.numpy()
            return narrowed(value, stored(value.dtype, self.program.precision)).to(self.device)
        return value

    def _leaving(self, value: Any, code: int) -> Any:
        if isinstance(value, list):
            return [self._leaving(v, 0) for v in value]
        if isinstance(value, np.ndarray):
            try:
                value = to_torch(value)
            except UnsupportedError:
                return value
        if not isinstance(value, torch.Tensor):
            return value
        if not code or code == _OPAQUE:
            half = self.program.precision.storage
            return value.float() if half != torch.float32 and value.dtype == half else value.to(self.device)
        return cast(value.to(self.device), dtype_of_code(code))


class Body:
    """A graph: the main one, or a branch or body of a node."""

    def __init__(
        self, owner: Dynamic, graph: Graph, attributes: list[dict[str, Any]], place: int = -1, path: str = ""
    ) -> None:
        self.owner, self.graph, self.place, self.path = owner, graph, place, path
        self.attributes = attributes
        self.known = {v: _dense(owner.tensors[k]) for v, k in graph.constants.items()}
        self._held: dict[int, torch.Tensor] = {}
        self._memos: list[dict[Any, Any]] = [{} for _ in graph.nodes]
        self._on_host: dict[int, HostNode] = {}
        self._dead = self._last_uses()
        self._bodies: dict[int, Body] = {}

    def body(self, sub: int, node: int) -> Body:
        """Graph attribute `sub`, of node `node` of this graph."""
        if sub not in self._bodies:
            graph = self.graph.subgraphs[sub]
            attributes = [
                {k: _dense(self.owner.tensors[v]) if kind == "tensor" else v for k, (kind, v) in n["attrs"].items()}
                for n in graph.nodes
            ]
            label = f"{self.path}{self.graph.nodes[node]['name'] or self.graph.nodes[node]['op']}: "
            place = node if self.place < 0 else self.place
            self._bodies[sub] = Body(self.owner, graph, attributes, place, label)
        return self._bodies[sub]

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        values: dict[int, Any] = {p["value"]: v for p, v in zip(self.graph.inputs, inputs, strict=True)}
        for i, node in enumerate(self.graph.nodes):
            given = [self.value(v, values) if v >= 0 else None for v in node["inputs"]]
            for v, made in zip(node["outputs"], self._node(i, given)):
                if v >= 0:
                    values[v] = made
            for v in self._dead[i]:
                values.pop(v, None)
        return [self.value(p["value"], values) for p in self.graph.outputs]

    def value(self, v: int, values: dict[int, Any]) -> Any:
        if v in values:
            return values[v]
        array = self.known[v]
        return array if array.size <= ON_HOST else self.held(v)

    def held(self, v: int) -> Any:
        """A constant on the device; what torch has no type for stays an array."""
        if v not in self._held:
            try:
                self._held[v] = self.owner.placed(to_torch(self.known[v]))
            except UnsupportedError:
                return self.known[v]
        return self._held[v]

    # ------------------------------------------------------------------------------------------------------------- nodes

    def _node(self, i: int, given: list[Any]) -> list[Any]:
        node = self.graph.nodes[i]
        op = node["op"] if node["domain"] == "" else ""
        if op in CONTROL:
            return CONTROL[op](self, i, given)
        if op in SEQUENCES:
            return [self._kept(SEQUENCES[op](given, self.attributes[i]), False)]
        if op == "Identity" and not isinstance(given[0], torch.Tensor):
            return given
        if i not in self._on_host:
            try:
                return self._by_torch(i, given)
            except (UnsupportedError, NotImplementedError) as e:
                reason = str(e)
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, TypeError, IndexError, ValueError, AssertionError, KeyError) as e:
                reason = f"torch refuses: {e}"
            return self._by_host(i, given, reason)
        return self._by_host(i, given, "")

    def _by_torch(self, i: int, given: list[Any]) -> list[Any]:
        node = self.graph.nodes[i]
        run = find(node["domain"], node["op"])
        if run is None:
            raise UnsupportedError("torch has no form of it")
        if any(isinstance(v, list | dict) for v in given):
            raise UnsupportedError("a sequence or map")
        on_host = not any(isinstance(v, torch.Tensor) for v in given)
        if on_host:
            made = self._called(run, i, given, torch.device("cpu"))
            if all(y is None or y.numel() <= ON_HOST for y in made):
                return [self._kept(y, True) for y in made]
        extents = node["op"] in ("Shape", "Size")  # known on the host wherever the data is
        return [self._kept(y, extents) for y in self._called(run, i, given, self.owner.device)]

    def _called(self, run: Any, i: int, given: list[Any], device: torch.device) -> list[torch.Tensor | None]:
        node = self.graph.nodes[i]
        tensors = [v if isinstance(v, torch.Tensor) else None for v in given]
        known = [v if isinstance(v, np.ndarray) else self.known.get(k) for k, v in zip(node["inputs"], given)]
        made = run(Call(node, tensors, known, self.attributes[i], True, self._memos[i], device))
        return [made] if isinstance(made, torch.Tensor) else list(made)

    def _kept(self, y: Any, on_host: bool) -> Any:
        if isinstance(y, list):
            return [self._kept(v, on_host) for v in y]
        if not isinstance(y, torch.Tensor):
            return y
        if on_host or (y.device.type == "cpu" and self.owner.device.type != "cpu" and y.numel() <= ON_HOST):
            return to_numpy(y)
        return y.to(device=self.owner.device, dtype=stored(y.dtype, self.owner.program.precision))

    def _by_host(self, i: int, given: list[Any], reason: str) -> list[Any]:
        """Through the CPU engine, as the graph types values."""
        node = self.graph.nodes[i]
        constants = {k: self.known[v] for k, v in enumerate(node["inputs"]) if v in self.known}
        runner = self._on_host.get(i) or HostNode(node, self.attributes[i], constants)
        made = runner([self._for_host(v) for v in given])
        if i not in self._on_host:
            self._on_host[i] = runner
            place = i if self.place < 0 else self.place
            self.owner.host_nodes.setdefault(place, f"{self.path}{node['op']}: {reason}")
        return [self.owner.placed(v) for v in made]

    def _for_host(self, v: Any) -> Any:
        if isinstance(v, list):
            return [self._for_host(e) for e in v]
        if not isinstance(v, torch.Tensor):
            return v
        half = self.owner.program.precision.storage
        return to_numpy(v.float() if half != torch.float32 and v.dtype == half else v)

    def _last_uses(self) -> list[list[int]]:
        last = {v: i for i, n in enumerate(self.graph.nodes) for v in n["inputs"] if v >= 0}
        kept = {p["value"] for p in self.graph.outputs}
        dead: list[list[int]] = [[] for _ in self.graph.nodes]
        for v, i in last.items():
            if v not in kept:
                dead[i].append(v)
        return dead


def _dense(held: Any) -> np.ndarray:
    array = held.get("dense") if isinstance(held, dict) else held
    if array is None:
        raise UnsupportedError("the program was saved for CPUs, with packed weights only: compile the model again")
    return np.asarray(array)
