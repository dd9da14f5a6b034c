# SPDX-License-Identifier: Apache-2.0
"""One node as a program for the CPU: its kernel there, or the reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastinfer import _core
from fastinfer.program import Graph, Program


def _fallback() -> Any:
    from fastinfer.fallback import Fallback

    return Fallback


class HostNode:
    """Arrays (or lists, None, dicts) in and out. Inputs that the node leaves out are None; constants (by input) are built
    in: some kernels want their weights so."""

    def __init__(
        self, node: dict[str, Any], attributes: dict[str, Any], constants: Mapping[int, np.ndarray] | None = None
    ) -> None:
        held = constants or {}
        given = [v >= 0 for v in node["inputs"]]
        made = [v >= 0 for v in node["outputs"]]
        ports = [
            {"value": i, "name": f"x{i}", "dtype": 0, "dims": None} for i, g in enumerate(given) if g and i not in held
        ]
        at = len(given)
        outputs = [at + i if m else -1 for i, m in enumerate(made)]
        tensors: dict[str, Any] = {f"constant {i}": array for i, array in held.items()}
        tensors |= {name: attributes[name] for name, (kind, _) in node["attrs"].items() if kind == "tensor"}
        attrs = {name: ["tensor", name] if kind == "tensor" else [kind, v] for name, (kind, v) in node["attrs"].items()}
        alone = {**node, "inputs": [i if g else -1 for i, g in enumerate(given)], "outputs": outputs, "attrs": attrs}
        out_ports = [{"value": v, "name": f"y{v}", "dtype": 0, "dims": None} for v in outputs if v >= 0]
        graph = Graph(at + len(made), ports, out_ports, {i: f"constant {i}" for i in held}, [alone])
        self._given, self._made = [g and i not in held for i, g in enumerate(given)], made
        self._native = Program(graph, tensors).native(_fallback, False)
        self._executor = _core.Executor(self._native, 1)

    def __call__(self, values: list[Any]) -> list[Any]:
        results = iter(self._executor.run([v for v, g in zip(values, self._given) if g]))
        return [next(results) if m else None for m in self._made]
