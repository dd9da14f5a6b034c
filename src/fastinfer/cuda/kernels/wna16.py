# SPDX-License-Identifier: Apache-2.0
"""kernels/nbits/wna16.cu as a family: how k is split over a cluster, and how many warps share a block's columns. Neither is
asked of m, so that a row's bits do not depend on the batch, tuned or not."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fastinfer.cuda import native


@dataclass(frozen=True)
class Problem:
    n: int
    k: int
    bits: int
    block: int
    dtype: str


@dataclass(frozen=True)
class Config:
    """0: the kernel's own choice."""

    warps: int = 0
    split: int = 0


def default(problem: Problem) -> Config:
    return Config()


def configs(problem: Problem) -> list[Config]:
    chunks = -(-problem.k // 64)
    return [Config(), *(Config(w, s) for w in (2, 4) for s in (1, 2, 4, 8) if s == 1 or chunks >= 2 * s)]


def workspace(problem: Problem, config: Config) -> int:
    return 0


def run(
    a: torch.Tensor, weights: torch.Tensor, meta: torch.Tensor, bias: torch.Tensor | None, y: torch.Tensor,
    *, problem: Problem, config: Config,
) -> None:  # fmt: skip
    native.wna16(
        a, weights, meta, bias, y, bits=problem.bits, block=problem.block, warps=config.warps, split=config.split
    )
