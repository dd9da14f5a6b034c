# SPDX-License-Identifier: Apache-2.0
"""What torch's exporter lacks: translations of operators of our own, and module parts that need another form."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch


def translation_table() -> dict[Callable, Callable]:
    return {}


@contextlib.contextmanager
def adapted_modules(module: torch.nn.Module) -> Iterator[None]:
    yield
