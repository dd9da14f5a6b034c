# SPDX-License-Identifier: Apache-2.0
"""Whole models in bfloat16 against torch.compile(mode="max-autotune"), the same module; batch 1 and 32. Then ragged batches,
and what a new size inside a bucket costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from suite.export import built
from suite.models import MODELS

import fastinfer as fi
from gpu.timing import CUDA, DEVICE, race, relative

NAMES = ["resnet50", "mobilenet_v2", "unet_w32_256", "bert_base_128", "vit_b16", "swin_t", "minilm_l6_32"]


def run(tune: bool, names: list[str]) -> list[dict[str, Any]]:
    return [_model(name, batch, tune) for name in names for batch in ((1, 32) if CUDA else (1,))]


def _example(name: str, batch: int) -> tuple[Any, tuple[torch.Tensor, ...]]:
    module, example = built(MODELS[name])
    rng = torch.Generator().manual_seed(batch)
    inputs = tuple(
        torch.randn(batch, *t.shape[1:], generator=rng) if t.is_floating_point()
        else t.expand(batch, *t.shape[1:]).contiguous() for t in example
    )  # fmt: skip
    return module, inputs


def _first(result: Any) -> torch.Tensor:
    if isinstance(result, torch.Tensor):
        return result
    return _first(next(iter(result.values())) if hasattr(result, "values") else result[0])


@torch.no_grad()
def _model(name: str, batch: int, tune: bool) -> dict[str, Any]:
    module, inputs = _example(name, batch)
    exact = _first(module(*inputs))
    model = fi.compile(module, inputs, device="cuda", precision="bf16")
    given = tuple(t.to(DEVICE) for t in inputs)
    if tune:
        model.tune(*[t.numpy() for t in inputs])
    ours = _first(model(*given))
    peer_module = module.to(DEVICE).bfloat16()
    halves = tuple(t.bfloat16() if t.is_floating_point() else t for t in given)
    contenders = {"ours": lambda: model(*given)}
    if CUDA:
        compiled = torch.compile(peer_module, mode="max-autotune")
        contenders["torch.compile"] = lambda: compiled(*halves)
    seconds = race(contenders, 30)
    row = {
        "model": name, "batch": batch, "times": seconds, "error": relative(ours, exact),
        "error of torch": relative(_first(peer_module(*halves)), exact),
        "through torch": sorted({s["kernel"] for s in model.explain().steps if s["kernel"].startswith("torch.")}),
        "peer / ours": seconds["torch.compile"] / seconds["ours"] if len(seconds) == 2 else None,
    }  # fmt: skip
    print(row)
    return row


def buckets(name: str = "mlp") -> dict[str, Any]:
    """Sizes inside one bucket share a plan: no capture, no compilation."""
    module, _ = built(MODELS[name])
    n = torch.export.Dim("n", min=1, max=1024)
    example = torch.randn(4, 784)
    model = fi.compile(module, (example,), dynamic_shapes=({0: n},), device="cuda", precision="bf16")
    model.run({model.inputs[0].name: np.zeros((20, 784), np.float32)})
    before = model.memory().plans
    for rows in (17, 18, 19, 20):
        model.run({model.inputs[0].name: np.ones((rows, 784), np.float32)})
    return {"plans before": before, "plans after sizes 17 to 20": model.memory().plans}
