# SPDX-License-Identifier: Apache-2.0
"""A batch of sentences of different lengths (mean/max 0.4), padded tensors on the device in and out: run_padded, which packs
them there, against torch on the padded batch with its mask, compiled and as a CUDA graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from suite.export import built
from suite.models import MODELS

import fastinfer as fi
from gpu.models import TINY, _first, rivals
from gpu.timing import DEVICE, SMALL, Job, race, relative

# (sentences, longest): as many tokens as BERT has at batch 32, and fewer sentences that are longer.
SHAPES = [(4, 8)] if SMALL else [(32, 128), (16, 256)]


def jobs() -> Iterator[Job]:
    for count, extent in SHAPES:
        yield f"ragged BERT, {count} sentences to {extent}", lambda c=count, e=extent: _batch(c, e)


def lengths_of(count: int, extent: int) -> list[int]:
    """One of the longest, the others drawn so that mean/max is 0.4 up to rounding."""
    rng = np.random.default_rng(count * extent)
    drawn = rng.uniform(0.05, 1, count - 1)
    target = 0.4 * count - 1  # of the others' sum, in parts of the longest
    for _ in range(50):
        drawn = np.clip(drawn * target / drawn.sum(), 1 / extent, 1)
    return [extent, *(max(2, round(extent * part)) for part in drawn)]


@torch.no_grad()
def _batch(count: int, extent: int) -> dict[str, Any]:
    module, example = built(TINY["small_bert"] if SMALL else MODELS["bert_base_128"])
    lengths = lengths_of(count, extent)
    mask = (torch.arange(extent)[None] < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(1, 9999, (count, extent), generator=torch.Generator().manual_seed(1)) * mask
    exact = _first(module(ids, mask))
    free = {0: torch.export.Dim("batch", min=1, max=4096), 1: torch.export.Dim("length", min=2, max=512)}
    wide = tuple(t.expand(2, -1).contiguous() for t in example)  # one sentence alone would be taken for a fixed extent
    model = fi.compile(module, wide, dynamic_shapes=(free, free), device="cuda", precision="bf16")
    given = {s.name: t.to(DEVICE) for s, t in zip(model.inputs, (ids, mask))}
    ours = _first(model.run_padded(given, lengths)).clone()
    peer = module.to(DEVICE).bfloat16()
    inputs = tuple(given.values())
    contenders: dict[str, Any] = {"ours": lambda: model.run_padded(given, lengths)}
    real = mask.bool()
    error = relative(_first(peer(*inputs)).cpu()[real], exact[real])
    seconds = race(contenders | rivals(peer, inputs), 30)
    others = [t for k, t in seconds.items() if k != "ours"]
    row = {
        "what": "ragged BERT", "shape": (count, extent), "mean / max": sum(lengths) / count / extent, "times": seconds,
        "error": relative(ours.cpu()[real], exact[real]), "error of torch": error,
        "peer / ours": min(others) / seconds["ours"] if others and "ours" in seconds else None,
    }  # fmt: skip
    print(row, flush=True)
    return row
