# SPDX-License-Identifier: Apache-2.0
"""What a binder may ask of the plan, and what it declares: the CUDA counterpart of csrc/ops/op.h's PlanContext."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from fastinfer.cuda.precision import Precision


class Declined(Exception):
    """A binder does not take the node: the next one is asked. The text is a reason for explain()."""


@dataclass(frozen=True)
class Desc:
    """A value as it is stored."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        n = 1
        for extent in self.shape:
            n *= extent
        return n

    @property
    def bytes(self) -> int:
        return self.elements * self.dtype.itemsize


@dataclass(eq=False)
class Handle:
    """A tensor that will be: dense, row-major, of desc's type and shape. Where it lies is settled when the plan is whole."""

    desc: Desc
    tensor: torch.Tensor | None = None  # constants, from the start
    root: int = -1  # of the plan's storages
    at: int = 0  # bytes from where the storage begins


@dataclass
class Step:
    """One launch (or a few, on one stream): run(*tensors, **static)."""

    node: int  # -1: the plan's own (copies at its ends)
    kernel: str
    run: Callable[..., None]
    handles: tuple[Handle | None, ...]
    static: dict[str, Any]
    flops: float = 0.0
    refusals: list[str] = field(default_factory=list)
    out: Desc | None = None  # of the node, for explain()
    also: tuple[int, ...] = ()  # other nodes that the step computes


class Family(Protocol):
    """A module of cuda.kernels that can be tuned: see kernels/__init__.py."""

    def configs(self, problem: Any) -> list[Any]: ...
    def default(self, problem: Any) -> Any: ...


class NodeContext(Protocol):
    node: dict[str, Any]
    precision: Precision

    @property
    def n_inputs(self) -> int: ...
    @property
    def n_outputs(self) -> int: ...
    def attr(self, name: str, default: Any = None) -> Any:
        """The attribute's value; tensors as arrays."""

    def has(self, i: int) -> bool:
        """Whether input i is given."""

    def wants(self, out: int) -> bool:
        """Whether anybody reads output `out`."""

    def desc(self, i: int) -> Desc: ...
    def out_desc(self, out: int) -> Desc: ...
    def typed_out(self, out: int) -> torch.dtype:
        """As the graph types it: float32 where out_desc says what it is stored as."""

    def known(self, i: int) -> np.ndarray | None:
        """Input i, where it is known while planning (constants, shape arithmetic)."""

    def is_constant(self, i: int) -> bool: ...
    def constant(
        self, i: int, layout: str = "", make: Callable[[torch.Tensor], torch.Tensor] | None = None, dtype: torch.dtype | None = None,
    ) -> Handle:  # fmt: skip
        """Constant input i on the device as `dtype` (default: as stored), after `make`, which runs once per program and
        (constant, layout, dtype): layouts of one name mean the same bytes. Raises Declined if it is no constant."""

    def input(self, i: int, wide: bool = False) -> Handle:
        """wide: the kernel converts as it loads: it may get float32 where desc(i) is a half (inputs of the model)."""

    def output(self, out: int, wide: bool = False) -> Handle:
        """wide: the kernel converts as it stores: it may have to store float32 (outputs of the model)."""

    def scratch(self, shape: tuple[int, ...], dtype: torch.dtype) -> Handle:
        """Memory until the end of the node's last step; what it holds at first is anything."""

    def alias(self, out: int, i: int) -> None:
        """The output is input i under the output's shape: no step, no copy."""

    def choose(self, family: Family, problem: Any) -> Any:
        """The configuration for a problem: tuned, shipped or default."""

    def step(
        self, kernel: str, run: Callable[..., None], *handles: Handle | None, flops: float = 0.0, **static: Any
    ) -> None: ...
    def refuse(self, reason: str) -> None:
        """For explain(): why a faster kernel was not taken."""


Binder = Callable[[NodeContext], None]
