# SPDX-License-Identifier: Apache-2.0
"""How kernels are launched, or, while a plan is compiled ahead, only compiled: nothing then touches the tensors' memory."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

_COMPILING: ContextVar[bool] = ContextVar("fastinfer_compiling", default=False)


def launch(kernel: Any, grid: tuple[int, ...]) -> Callable[..., Any]:
    """``launch(kernel, grid)(*arguments)`` for ``kernel[grid](*arguments)``."""
    return functools.partial(kernel.run, grid=grid, warmup=True) if _COMPILING.get() else kernel[grid]


@contextlib.contextmanager
def only_compile() -> Iterator[None]:
    before = _COMPILING.set(True)
    try:
        yield
    finally:
        _COMPILING.reset(before)
