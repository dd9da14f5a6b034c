# SPDX-License-Identifier: Apache-2.0
"""A lowered model on a device: its nodes, its constants there in the layouts that kernels want, and the shapes of its values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from fastinfer import _core
from fastinfer.cuda.context import Desc
from fastinfer.cuda.device import Device
from fastinfer.cuda.dtypes import dtype_of, dtype_of_code, stored, tensor_of
from fastinfer.cuda.precision import Precision
from fastinfer.cuda.table import FOLDED, RENAMES, TABLE
from fastinfer.cuda.torch_ops import find
from fastinfer.errors import FastinferError, UnsupportedError
from fastinfer.program import Graph, Program


class DeviceProgram:
    """Immutable but for what it remembers: constants are uploaded when a plan first wants them."""

    def __init__(
        self, program: Program, device: Device, precision: Precision, shares: DeviceProgram | None = None
    ) -> None:
        """shares: another program on the same tensors, whose constants on the device are this one's too."""
        self.device, self.precision = device, precision
        self.graph: Graph = program.graph
        self.nodes = self.graph.nodes
        self.tensors = program.tensors  # those of subgraphs: dynamic.py
        self.attributes = [self._attributes(n, program) for n in self.nodes]
        self.constants: dict[int, np.ndarray] = {v: _dense(program, key) for v, key in self.graph.constants.items()}
        self._uploaded: dict[tuple[Any, ...], torch.Tensor] = {} if shares is None else shares._uploaded
        self.native = program.shapes_only()
        self._shapes = _core.Executor(self.native, 1)
        self.last_use = self._last_uses()
        self.leaves = self._leaves()

    def shapes(self, inputs: list[tuple[int, tuple[int, ...]]]) -> dict[str, Any]:
        """Of all values, for inputs of these type codes and shapes (see _core.pyi). Raises InputError."""
        return self._shapes.shapes(inputs)

    def constant(
        self, value: int, layout: str, make: Callable[[torch.Tensor], torch.Tensor] | None, dtype: torch.dtype | None
    ) -> torch.Tensor:
        array = self.constants[value]
        kept = dtype or stored(dtype_of(array.dtype), self.precision)
        key = self.graph.constants[value], layout, kept
        tensor = self._uploaded.get(key)
        if tensor is None:
            tensor = tensor_of(array, kept, self.device.torch)
            if make:
                tensor = make(tensor).contiguous()
            self._settle()
            self._uploaded[key] = tensor
        return tensor

    def _settle(self) -> None:
        """Who finds a constant may be on another stream."""
        if self.device.graphs:
            torch.cuda.current_stream(self.device.torch).synchronize()

    def stacked(
        self, values: list[int], layout: str, make: Callable[[torch.Tensor], torch.Tensor] | None, dtype: torch.dtype
    ) -> torch.Tensor:
        """Constants of one shape, each as constant() gives it, one behind the other; from then on constant() gives its part."""
        keys = [(self.graph.constants[v], layout, dtype) for v in values]
        whole = self._uploaded.get(tuple(keys))
        if whole is None:
            whole = torch.stack([self.constant(v, layout, make, dtype) for v in values])
            self._settle()
            self._uploaded[tuple(keys)] = whole
            self._uploaded.update(zip(keys, whole))
        return whole

    def without_kernel(self) -> dict[str, str]:
        """Nodes whose operator has no kernel of ours, whatever its shapes → what runs instead."""
        return {
            self.label(i): "runs through torch" if find(n["domain"], n["op"]) else "runs on the host"
            for i, n in enumerate(self.nodes)
            if (n["domain"], n["op"]) not in TABLE and (n["domain"], n["op"]) not in RENAMES | FOLDED
        }

    @property
    def constant_bytes(self) -> int:
        return sum(
            {
                t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in list(self._uploaded.values())
            }.values()
        )

    def desc(self, code: int, shape: tuple[int, ...]) -> Desc:
        return Desc(stored(dtype_of_code(code), self.precision), shape)

    def label(self, node: int) -> str:
        n = self.nodes[node]
        return f"node '{n['name']}' ({n['domain'] + '.' if n['domain'] else ''}{n['op']})"

    def _last_uses(self) -> dict[int, int]:
        uses = {v: i for i, n in enumerate(self.nodes) for v in n["inputs"] if v >= 0}
        return {**uses, **{port["value"]: len(self.nodes) for port in self.graph.outputs}}

    def _leaves(self) -> dict[int, torch.dtype | None]:
        """Values that are outputs, some under another shape, and the type they leave in (None: as they are stored)."""
        found = {p["value"]: _leaving(p["dtype"]) for p in self.graph.outputs}
        for node in reversed(self.nodes):
            if (node["domain"], node["op"]) in RENAMES and node["outputs"][0] in found:
                found.setdefault(node["inputs"][0], found[node["outputs"][0]])
        return found

    @staticmethod
    def _attributes(node: dict[str, Any], program: Program) -> dict[str, Any]:
        return {
            name: np.asarray(program.tensors[value]) if kind == "tensor" else value
            for name, (kind, value) in node["attrs"].items()
        }


def _leaving(code: int) -> torch.dtype | None:
    try:
        return dtype_of_code(code) if code else None
    except FastinferError:  # strings, sequences and what else leaves as it is
        return None


def _dense(program: Program, key: str) -> np.ndarray:
    held = program.tensors[key]
    array = held.get("dense") if isinstance(held, dict) else held
    if array is None:
        raise UnsupportedError("the program was saved for CPUs, with packed weights only: compile the model again")
    return np.asarray(array)
