# SPDX-License-Identifier: Apache-2.0
"""Compiles the kernels of a plan before its first launch, several at once: of a compilation's second or two most is spent in
LLVM and ptxas, which do not hold Python's lock. Without it a model's first call compiles them one after the other."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import triton

from fastinfer.cuda.context import Step
from fastinfer.cuda.device import INTERPRET
from fastinfer.cuda.kernels.launch import launch, only_compile

# Beyond so many at once they wait for Python's lock: a quarter of a compilation holds it.
THREADS = 8


def compile_ahead(steps: Iterable[Step]) -> int:
    """Compiles, for the current device, what the steps launch and no process has compiled before (Triton keeps binaries on
    disk). Gives how many were not loaded yet. What a compiler refuses is left to the launch, which says why."""
    if INTERPRET:
        return 0
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1), "fastinfer-compile") as pool:
        with triton.AsyncCompileMode(pool, ignore_errors=True) as mode, only_compile():
            for step in steps:
                if _is_triton(step):
                    with contextlib.suppress(Exception):  # the launch meets it again
                        step.run(*[h.tensor if h is not None else None for h in step.handles], **step.static)
        return len(mode.raw_futures)


def _is_triton(step: Step) -> bool:
    return getattr(sys.modules[step.run.__module__], "launch", None) is launch
