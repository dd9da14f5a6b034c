# SPDX-License-Identifier: Apache-2.0
"""The planner's side of NodeContext: one node while it is bound."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fastinfer.cuda.context import Declined, Desc, Family, Handle, Step

if TYPE_CHECKING:
    from fastinfer.cuda.plan import Planner


class Node:
    def __init__(self, planner: Planner, index: int) -> None:
        self._planner, self.index = planner, index
        self.node: dict[str, Any] = planner.program.nodes[index]
        self.precision = planner.program.precision
        self.device = planner.program.device
        self.refusals: list[str] = []
        self._attributes = planner.program.attributes[index]
        self._steps, self._narrowed = len(planner.steps), len(planner.narrowed)
        self._scratch: list[int] = []
        self._defined: dict[int, Handle] = {}
        self._aliased = False

    # ------------------------------------------------------------------------------------------------------ what it asks

    @property
    def n_inputs(self) -> int:
        return len(self.node["inputs"])

    @property
    def n_outputs(self) -> int:
        return len(self.node["outputs"])

    def attr(self, name: str, default: Any = None) -> Any:
        return self._attributes.get(name, default)

    def has(self, i: int) -> bool:
        return i < self.n_inputs and self.node["inputs"][i] >= 0

    def wants(self, out: int) -> bool:
        return out < self.n_outputs and self.node["outputs"][out] >= 0

    def desc(self, i: int) -> Desc:
        return self._planner.values[self.node["inputs"][i]].desc

    def out_desc(self, out: int) -> Desc:
        return self._planner.values[self.node["outputs"][out]].desc

    def typed_out(self, out: int) -> torch.dtype:
        return self._planner.values[self.node["outputs"][out]].typed

    def known(self, i: int) -> np.ndarray | None:
        return self._planner.values[self.node["inputs"][i]].known if self.has(i) else None

    def is_constant(self, i: int) -> bool:
        return self.has(i) and self.node["inputs"][i] in self._planner.program.constants

    def constant(
        self, i: int, layout: str = "", make: Callable[[torch.Tensor], torch.Tensor] | None = None, dtype: torch.dtype | None = None,
    ) -> Handle:  # fmt: skip
        if not self.is_constant(i):
            raise Declined(f"input {i} is not constant")
        tensor = self._planner.program.constant(self.node["inputs"][i], layout, make, dtype)
        return Handle(Desc(tensor.dtype, tuple(tensor.shape)), tensor)

    # -------------------------------------------------------------------------------------------------- what it declares

    def input(self, i: int, wide: bool = False) -> Handle:
        return self._planner.where(self.node["inputs"][i], wide)

    def output(self, out: int, wide: bool = False) -> Handle:
        if out not in self._defined:
            self._defined[out] = self._planner.define(self.node["outputs"][out], wide)
        return self._defined[out]

    def scratch(self, shape: tuple[int, ...], dtype: torch.dtype) -> Handle:
        desc = Desc(dtype, shape)
        root = self._planner.take(desc.bytes, len(self._planner.program.nodes))
        self._scratch.append(root)
        return self._planner.handle(desc, root)

    def alias(self, out: int, i: int) -> None:
        self._aliased = True
        self._planner.alias(self.node["outputs"][out], self.node["inputs"][i])

    def choose(self, family: Family, problem: Any) -> Any:
        return self._planner.tuner.choose(family, problem)

    def step(
        self, kernel: str, run: Callable[..., None], *handles: Handle | None, flops: float = 0.0, **static: Any
    ) -> None:
        wanted = next((o for o in range(self.n_outputs) if self.wants(o)), None)
        out = None if wanted is None else self.out_desc(wanted)
        self._planner.steps.append(Step(self.index, kernel, run, handles, static, flops, out=out))

    def refuse(self, reason: str) -> None:
        self.refusals.append(reason)

    # --------------------------------------------------------------------------------------------------- the planner's

    def undo(self) -> None:
        """Of a binder that declined: it leaves nothing."""
        planner = self._planner
        planner.widen_again(self._narrowed)
        if len(planner.steps) > self._steps or self._aliased:
            raise AssertionError(f"a binder of {self.node['op']} declined after it had begun")
        for root in self._scratch:
            planner.give_back(root)
        for out in self._defined:
            planner.undefine(self.node["outputs"][out])

    def end(self) -> None:
        for root in self._scratch:
            self._planner.give_back(root)
