# SPDX-License-Identifier: Apache-2.0
"""One run of one node through torch, and the table of functions that do it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch


class NotStatic(Exception):
    """The node needs the values of a tensor on the host, which are not known while planning."""


class Call:
    """A node's attributes and inputs. known: values that the host has, by input; where it has none, host() reads the tensor
    back if `read_back`, else raises NotStatic."""

    def __init__(
        self,
        node: dict[str, Any],
        tensors: Sequence[torch.Tensor | None],
        known: Sequence[np.ndarray | None],
        attributes: dict[str, Any],
        read_back: bool = False,
    ) -> None:
        self.node, self.tensors, self._known, self._attributes = node, tensors, known, attributes
        self._read_back = read_back

    @property
    def n_inputs(self) -> int:
        return len(self.tensors)

    @property
    def n_outputs(self) -> int:
        return len(self.node["outputs"])

    def wants(self, out: int) -> bool:
        return out < self.n_outputs and self.node["outputs"][out] >= 0

    def attr(self, name: str, default: Any = None) -> Any:
        return self._attributes.get(name, default)

    def has(self, i: int) -> bool:
        return i < len(self.tensors) and (self.tensors[i] is not None or self._known[i] is not None)

    def x(self, i: int) -> torch.Tensor:
        """Input i on the device."""
        tensor = self.tensors[i]
        assert tensor is not None
        return tensor

    def maybe(self, i: int) -> torch.Tensor | None:
        return self.x(i) if self.has(i) else None

    def host(self, i: int) -> np.ndarray:
        """Input i on the host."""
        known = self._known[i]
        if known is None and not self._read_back:
            raise NotStatic(f"input {i} is not known before the model runs")
        return self.x(i).cpu().numpy() if known is None else known


TorchOp = Callable[[Call], "torch.Tensor | Sequence[torch.Tensor | None]"]
OPS: dict[tuple[str, str], TorchOp] = {}


def find(domain: str, op: str) -> TorchOp | None:
    return OPS.get((domain, op))
