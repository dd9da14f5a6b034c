# SPDX-License-Identifier: Apache-2.0
"""A dense tensor in another type: the step where no kernel converts as it loads or stores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fastinfer.cuda.context import Desc, Family
from fastinfer.cuda.kernels import pointwise
from fastinfer.cuda.kernels.pointwise_walk import walk_broadcast

_FLOATS = {torch.float32, torch.float16, torch.bfloat16}


def conversion(x: Desc, y: Desc, choose: Callable[[Family, Any], Any]) -> tuple[Callable[..., None], dict[str, Any]]:
    """(what runs on both tensors, with what). Halves saturate."""
    if x.dtype == y.dtype or not {x.dtype, y.dtype} <= _FLOATS or x.elements == 0:
        return _copy, {}
    problem = pointwise.cast_problem(walk_broadcast(y.shape, [x.shape], 1), x.dtype, y.dtype)
    return pointwise.run, {"problem": problem, "config": choose(pointwise, problem)}


def _copy(source: torch.Tensor, target: torch.Tensor) -> None:
    target.copy_(source)
