# SPDX-License-Identifier: Apache-2.0
"""One run of one node through torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from fastinfer.cuda.dtypes import to_torch

HALF = (torch.float16, torch.bfloat16)
# Per-channel constants up to this size are read in float32 whatever the storage: a scale in bfloat16 is 0.4 % off.
UNROUNDED_ELEMENTS = 4096
# torch computes little in these; their bits move as the signed type's.
SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


class NotStatic(Exception):
    """The node needs the values of a tensor on the host, which are not known while planning."""


class Call:
    """A node's attributes and inputs. known: values that the host has, by input; where it has none, host() reads the tensor
    back if `read_back`, else raises NotStatic. memo: what a node keeps from run to run (small tables on the device): it
    must live as long as a captured graph does."""

    def __init__(
        self,
        node: dict[str, Any],
        tensors: Sequence[torch.Tensor | None],
        known: Sequence[np.ndarray | None],
        attributes: dict[str, Any],
        read_back: bool = False,
        memo: dict[Any, Any] | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.node, self.tensors, self._known, self.attributes = node, tensors, known, attributes
        self.read_back, self.memo = read_back, {} if memo is None else memo
        self.device = device or next((t.device for t in tensors if t is not None), torch.device("cpu"))

    @property
    def n_inputs(self) -> int:
        return len(self.tensors)

    @property
    def n_outputs(self) -> int:
        return len(self.node["outputs"])

    def wants(self, out: int) -> bool:
        return out < self.n_outputs and self.node["outputs"][out] >= 0

    def attr(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)

    def has(self, i: int) -> bool:
        return i < len(self.tensors) and (self.tensors[i] is not None or self._known[i] is not None)

    def x(self, i: int) -> torch.Tensor:
        """Input i on the device, as stored."""
        tensor = self.tensors[i]
        if tensor is None:
            return self.upload(self.host(i))
        return tensor if tensor.device == self.device else tensor.to(self.device)

    def wide(self, i: int) -> torch.Tensor:
        """Input i, in float32 where it is stored in half of that; scales and biases that the host knows, unrounded."""
        x, known = self.tensors[i], self._known[i]
        if x is not None and x.dtype in HALF and known is not None and known.dtype == np.float32:
            if self.small(i) is not None:
                return self.upload(known)
        x = self.x(i)
        return x.float() if x.dtype in HALF else x

    def small(self, i: int) -> np.ndarray | None:
        """Input i, where the host knows it and it is no more than a value per channel."""
        known = self._known[i] if i < len(self._known) else None
        return known if known is not None and known.size <= UNROUNDED_ELEMENTS else None

    def maybe(self, i: int) -> torch.Tensor | None:
        return self.x(i) if self.has(i) else None

    def maybe_wide(self, i: int) -> torch.Tensor | None:
        return self.wide(i) if self.has(i) else None

    def known(self, i: int) -> np.ndarray | None:
        """Input i, where the host has it without asking the device."""
        return self._known[i]

    def host(self, i: int) -> np.ndarray:
        """Input i on the host."""
        known, tensor = self._known[i], self.tensors[i]
        if known is not None:
            return known
        assert tensor is not None
        if not self.read_back:
            raise NotStatic(f"input {i} is not known before the model runs")
        tensor = tensor.cpu()
        return tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()

    def ints(self, i: int) -> list[int]:
        return [int(v) for v in self.host(i).reshape(-1)]

    def int_(self, i: int) -> int:
        return self.ints(i)[0]

    def ints_or_attr(self, i: int, name: str) -> list[int] | None:
        """What older opsets had as an attribute."""
        given = self.ints(i) if self.has(i) else self.attr(name)
        return None if given is None else [int(v) for v in given]

    def form(self) -> tuple[Any, ...]:
        """What an operator's meaning depends on: attributes, and which inputs there are, of which types and ranks."""
        attributes = [(k, v.tobytes() if isinstance(v, np.ndarray) else repr(v)) for k, v in self.attributes.items()]
        inputs = [(x.dtype, x.ndim) if (x := self.maybe(i)) is not None else None for i in range(self.n_inputs)]
        return self.node["op"], self.n_outputs, *inputs, *attributes

    def upload(self, array: np.ndarray, dtype: torch.dtype | None = None) -> torch.Tensor:
        """A table made on the host, on the device; the same one for the same content."""
        key = array.tobytes(), array.dtype.str, array.shape, dtype, self.device
        if key not in self.memo:
            tensor = to_torch(array)
            self.memo[key] = tensor.to(device=self.device, dtype=dtype or tensor.dtype)
        return self.memo[key]


TorchOp = Callable[[Call], "torch.Tensor | Sequence[torch.Tensor | None]"]


def int64(x: torch.Tensor) -> torch.Tensor:
    """Integers that torch computes in: the unsigned ones beyond 8 bits as int64 (uint64: its bits)."""
    if x.dtype == torch.uint64:
        return x.view(torch.int64)
    return x.to(torch.int64) if x.dtype in SIGNED else x


def signed(x: torch.Tensor) -> torch.Tensor:
    """The same bits in a type that torch moves."""
    if x.dtype in SIGNED:
        return x.view(SIGNED[x.dtype])
    return x.view(torch.int8) if x.dtype in (torch.float8_e4m3fn, torch.float8_e5m2) else x


def like(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Back from int64() or signed(): the low bits."""
    if x.dtype == dtype:
        return x
    return x.view(dtype) if x.dtype.itemsize == dtype.itemsize else x.to(dtype)


def moved(fn: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """fn, which only moves elements, of a tensor of any type."""
    return like(fn(signed(x)), x.dtype)
