# SPDX-License-Identifier: Apache-2.0
"""The convolutions of ResNet-50 with their ReLU, against cuDNN (channels last, its own search) and a separate ReLU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from onnx import helper

from gpu.ceilings import Ceilings
from gpu.layers import model_of, step_of
from gpu.timing import DEVICE, SMALL, Job, race, relative

# (channels in, map, channels out, kernel, stride, how often)
LAYERS = [
    (3, 224, 64, 7, 2, 1), (64, 56, 64, 1, 1, 1), (64, 56, 64, 3, 1, 3), (64, 56, 256, 1, 1, 4), (256, 56, 64, 1, 1, 2),
    (256, 56, 128, 1, 1, 1), (128, 56, 128, 3, 2, 1), (128, 28, 512, 1, 1, 4), (512, 28, 128, 1, 1, 3),
    (128, 28, 128, 3, 1, 3), (512, 28, 256, 1, 1, 1), (256, 28, 256, 3, 2, 1), (256, 14, 1024, 1, 1, 6),
    (1024, 14, 256, 1, 1, 5), (256, 14, 256, 3, 1, 5), (1024, 14, 512, 1, 1, 1), (512, 14, 512, 3, 2, 1),
    (512, 7, 2048, 1, 1, 3), (2048, 7, 512, 1, 1, 2), (512, 7, 512, 3, 1, 2),
]  # fmt: skip
TINY = [(8, 6, 16, 3, 1, 1), (3, 9, 8, 3, 2, 1)]


def jobs(roof: Ceilings, tune: bool) -> Iterator[Job]:
    torch.backends.cudnn.benchmark = True
    for batch in (1,) if SMALL else (1, 32):
        for layer in TINY if SMALL else LAYERS:
            yield f"convolution {layer}, batch {batch}", lambda b=batch, c=layer: _layer(b, *c, roof, tune)


def _layer(
    batch: int, cin: int, size: int, cout: int, kernel: int, stride: int, times: int, roof: Ceilings, tune: bool
) -> dict[str, Any]:
    rng, pad = np.random.default_rng(cin + cout), kernel // 2
    x = rng.standard_normal((batch, cin, size, size), np.float32)
    w = (rng.standard_normal((cout, cin, kernel, kernel), np.float32) / (cin * kernel**2) ** 0.5).astype(np.float32)
    b = rng.standard_normal(cout, np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["h"], pads=[pad] * 4, strides=[stride] * 2),
        helper.make_node("Relu", ["h"], ["y"]),
    ]
    ours, name, result = step_of(model_of(nodes, x.shape, {"w": w, "b": b}, "bf16", tune), x, "Conv")
    last = torch.channels_last
    tx, tw = (torch.from_numpy(a).to(DEVICE, torch.bfloat16).to(memory_format=last) for a in (x, w))
    tb = torch.from_numpy(b).to(DEVICE, torch.bfloat16)
    seconds = race({"ours": ours, "cudnn + relu": lambda: torch.conv2d(tx, tw, tb, stride, pad).relu_()})
    exact = torch.conv2d(*(torch.from_numpy(a).double() for a in (x, w, b)), stride, pad).relu()
    operations = 2.0 * exact.numel() * cin * kernel**2
    floor = roof.floor(operations, "bf16", 2.0 * (x.size + w.size + exact.numel()))
    row: dict[str, Any] = {
        "what": f"conv {kernel}x{kernel}/{stride} + relu, batch {batch}", "shape": (cin, size, cout), "kernel": name,
        "times a network": times, "times": seconds, "error": relative(result, exact),
        "peer / ours": seconds.get("cudnn + relu", 0.0) / seconds["ours"] if "ours" in seconds else None,
    }  # fmt: skip
    if "ours" in seconds:
        row["share of ceiling"] = floor / seconds["ours"]
    print(row, flush=True)
    return row
