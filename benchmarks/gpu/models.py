# SPDX-License-Identifier: Apache-2.0
"""Whole models in bfloat16 against torch.compile(mode="max-autotune") and torch in a CUDA graph, the same module, and what a new
size inside a bucket costs. Ragged batches: ragged.py."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from suite.blocks import Classifier, ConvNorm
from suite.export import built
from suite.models import IMAGE, MODELS, TEXT, Benchmark
from suite.sequence import bert

import fastinfer as fi
from gpu.timing import CUDA, DEVICE, SMALL, Job, graphed, race, relative

NAMES = ["resnet50", "mobilenet_v2", "unet_w32_256", "bert_base_128", "vit_b16", "swin_t", "minilm_l6_32"]


def _small_convnet() -> torch.nn.Module:
    return torch.nn.Sequential(ConvNorm(3, 8, 3, 2), ConvNorm(8, 16), Classifier(16, 10))


def _small_bert() -> torch.nn.Module:
    return bert(vocab_size=9999, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)


# For --tiny: what the code does, with models that an interpreter can run.
TINY = {
    b.name: b
    for b in (
        Benchmark("small_convnet", _small_convnet, (1, 3, 12, 12), IMAGE), Benchmark("small_bert", _small_bert, (1, 8), TEXT),
    )
}  # fmt: skip


def names() -> list[str]:
    return list(TINY) if SMALL else NAMES


def jobs(tune: bool, chosen: list[str], batches: list[int]) -> Iterator[Job]:
    for name in chosen:
        for batch in batches[:1] if SMALL else batches:
            yield f"{name}, batch {batch}", lambda n=name, b=batch: _model(n, b, tune)


def _example(name: str, batch: int) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    """The module with its seeded weights (nothing is downloaded), and inputs of its shapes."""
    module, example = built({**MODELS, **TINY}[name])
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
    began = time.perf_counter()
    model = fi.compile(module, inputs, device="cuda", precision="bf16")
    given = tuple(t.to(DEVICE) for t in inputs)
    if tune:
        model.tune(*[t.numpy() for t in inputs])
    ours = _first(model(*given)).clone()
    ready = time.perf_counter() - began
    print(f"  {name}, batch {batch}: ours compiled{' and tuned' if tune else ''} in {ready:.0f} s", flush=True)
    contenders: dict[str, Any] = {"ours": lambda: model(*given)}
    peer, halves = _peer(module, given)
    error = relative(_first(peer(*halves)), exact)
    seconds = race(contenders | rivals(peer, halves), 30)
    steps = model.explain(dict(zip([s.name for s in model.inputs], (t.numpy() for t in inputs)))).steps
    others = [t for k, t in seconds.items() if k != "ours"]
    row = {
        "model": name, "batch": batch, "times": seconds, "error": relative(ours, exact), "error of torch": error,
        "through torch": sorted({s["kernel"] for s in steps if s["kernel"].startswith("torch.")}),
        "peer / ours": min(others) / seconds["ours"] if others and "ours" in seconds else None,
    }  # fmt: skip
    print(row, flush=True)
    return row


def _peer(module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    """The same weights and inputs in bfloat16, on the device, in the layout that convolutions are fastest in there."""
    halves = tuple(t.bfloat16() if t.is_floating_point() else t for t in given)
    peer = module.to(DEVICE).bfloat16()
    if any(isinstance(m, torch.nn.Conv2d) for m in module.modules()):
        peer = peer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        halves = tuple(t.to(memory_format=torch.channels_last) if t.ndim == 4 else t for t in halves)
    return peer, halves


def rivals(peer: torch.nn.Module, halves: tuple[torch.Tensor, ...]) -> dict[str, Callable[[], object]]:
    found: dict[str, Callable[[], object]] = {}
    if CUDA:
        try:
            found["torch, graph"] = graphed(lambda: peer(*halves))
        except RuntimeError as e:  # modules that read back what a mask holds
            print(f"  torch in a graph does not run: {str(e).splitlines()[0][:160]}")
    if CUDA and not SMALL:
        found["torch.compile"] = compiled(peer, halves)
    return found


def compiled(peer: torch.nn.Module, halves: tuple[torch.Tensor, ...]) -> Callable[[], object]:
    """torch's best: weights frozen into the program, kernels raced, CUDA graphs; for this batch size alone (a second one would
    otherwise be compiled for free sizes)."""
    import torch._inductor.config as inductor

    torch._dynamo.reset()
    inductor.freezing = True
    best = torch.compile(peer, mode="max-autotune", dynamic=False)
    return lambda: best(*halves)


def buckets(name: str = "mlp") -> dict[str, Any]:
    """Sizes inside one bucket share a plan: no capture, no compilation."""
    module, _ = built(MODELS[name])
    n = torch.export.Dim("n", min=1, max=1024)
    example = torch.randn(4, 784)
    model = fi.compile(module, (example,), dynamic_shapes=({0: n},), device="cuda", precision="bf16")
    feeds = {n: {model.inputs[0].name: np.ones((n, 784), np.float32)} for n in (20, 17, 18, 19)}
    seconds, plans = {}, {}
    for rows, feed in feeds.items():  # the first captures
        began = time.perf_counter()
        model.run(feed)
        seconds[rows], plans[rows] = time.perf_counter() - began, model.memory().plans
    return {"plans before": plans[20], "plans after sizes 17 to 20": plans[19], "seconds of the first call": seconds}
