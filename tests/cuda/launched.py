# SPDX-License-Identifier: Apache-2.0
"""What a family's run() launches, compiled for Hopper: arguments as they come, typed and specialised as triton's launcher does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import sm90
import torch

_TYPES = {
    torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.int64: "*i64", torch.int32: "*i32",
    torch.bool: "*i1",
}  # fmt: skip


def empty(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    """A tensor without memory: only its type, shape and strides matter."""
    return torch.empty(shape, dtype=dtype, device="meta")


@contextmanager
def recording(module: ModuleType, found: list[sm90.Compiled]) -> Iterator[None]:
    """Within, kernels of the module are compiled instead of launched. Constexprs and options must be given by name."""
    kernels = {k: v for k, v in vars(module).items() if k.endswith("_kernel")}
    try:
        for name, kernel in kernels.items():
            setattr(module, name, _Recorder(f"{module.__name__}:{name}", kernel.arg_names, found))
        yield
    finally:
        for name, kernel in kernels.items():
            setattr(module, name, kernel)


class _Recorder:
    def __init__(self, name: str, arg_names: list[str], found: list[sm90.Compiled]) -> None:
        self._name, self._arg_names, self._found = name, arg_names, found

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return self._compile

    def _compile(self, *args: Any, **given: Any) -> None:
        options = {k: given.pop(k) for k in ("num_warps", "num_stages") if k in given}
        signature, unaligned = {}, []
        for name, value in zip(self._arg_names, args):
            if isinstance(value, torch.Tensor):
                signature[name] = _TYPES[value.dtype]
            elif isinstance(value, float):
                signature[name] = "fp32"
            elif value == 1:
                given[name] = 1
            else:
                signature[name] = "i32" if abs(value) < 2**31 else "i64"
                unaligned += [name] if value % 16 else []
        self._found.append(sm90.compile(self._name, signature, given, options, tuple(unaligned)))


def compiled(module: ModuleType, launch: Callable[[], None]) -> list[sm90.Compiled]:
    found: list[sm90.Compiled] = []
    with recording(module, found):
        launch()
    return found
