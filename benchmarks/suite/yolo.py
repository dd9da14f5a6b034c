# SPDX-License-Identifier: Apache-2.0
"""The graph of YOLOv8n (depth 0.33, width 0.25) with its decoded detection head; weights are random."""

from __future__ import annotations

import torch
from torch import nn

from suite.blocks import ConvNorm

CLASSES, REG_MAX, STRIDES = 80, 16, (8, 16, 32)


def conv(cin: int, cout: int, kernel: int = 1, stride: int = 1) -> nn.Module:
    return ConvNorm(cin, cout, kernel, stride, act=nn.SiLU, eps=1e-3)


class Bottleneck(nn.Module):
    def __init__(self, channels: int, adds: bool):
        super().__init__()
        self.body, self.adds = nn.Sequential(conv(channels, channels, 3), conv(channels, channels, 3)), adds

    def forward(self, x):
        return x + self.body(x) if self.adds else self.body(x)


class C2f(nn.Module):
    """Split in two; each bottleneck works on the last piece; all pieces are concatenated and mixed."""

    def __init__(self, cin: int, cout: int, repeats: int, adds: bool):
        super().__init__()
        self.half = cout // 2
        self.enter, self.leave = conv(cin, cout), conv((2 + repeats) * self.half, cout)
        self.blocks = nn.ModuleList([Bottleneck(self.half, adds) for _ in range(repeats)])

    def forward(self, x):
        pieces = list(self.enter(x).split(self.half, 1))
        for block in self.blocks:
            pieces.append(block(pieces[-1]))
        return self.leave(torch.cat(pieces, 1))


class SPPF(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.enter, self.leave = conv(channels, channels // 2), conv(channels * 2, channels)

    def forward(self, x):
        pieces = [self.enter(x)]
        for _ in range(3):
            pieces.append(torch.max_pool2d(pieces[-1], 5, 1, 2))
        return self.leave(torch.cat(pieces, 1))


class Detect(nn.Module):
    """Per level a box and a class branch; boxes are expectations over 16 bins (DFL), decoded to centre and size."""

    def __init__(self, channels: tuple[int, ...], size: int):
        super().__init__()
        box, cls = max(16, channels[0] // 4, REG_MAX * 4), max(channels[0], min(CLASSES, 100))
        self.box = nn.ModuleList([self._branch(c, box, 4 * REG_MAX) for c in channels])
        self.cls = nn.ModuleList([self._branch(c, cls, CLASSES) for c in channels])
        # Fixed weights 0…15 turn bin probabilities into a distance; `settle` leaves what needs no gradient alone.
        self.dfl = nn.Conv2d(REG_MAX, 1, 1, bias=False).requires_grad_(False)
        self.dfl.weight.copy_(torch.arange(REG_MAX, dtype=torch.float32).view(1, REG_MAX, 1, 1))
        anchors, strides = self._anchors(size)
        self.register_buffer("anchors", anchors)
        self.register_buffer("strides", strides)

    @staticmethod
    def _branch(cin: int, mid: int, cout: int) -> nn.Module:
        return nn.Sequential(conv(cin, mid, 3), conv(mid, mid, 3), nn.Conv2d(mid, cout, 1))

    @staticmethod
    def _anchors(size: int) -> tuple[torch.Tensor, torch.Tensor]:
        points, strides = [], []
        for s in STRIDES:
            axis = torch.arange(size // s) + 0.5
            y, x = torch.meshgrid(axis, axis, indexing="ij")
            points.append(torch.stack([x.flatten(), y.flatten()]))
            strides.append(torch.full((1, y.numel()), float(s)))
        return torch.cat(points, 1)[None], torch.cat(strides, 1)[None]

    def forward(self, levels):
        batch = levels[0].shape[0]
        raw = [torch.cat([box(x), cls(x)], 1) for box, cls, x in zip(self.box, self.cls, levels)]
        joined = torch.cat([x.view(batch, 4 * REG_MAX + CLASSES, -1) for x in raw], 2)
        box, cls = joined.split((4 * REG_MAX, CLASSES), 1)
        bins = box.view(batch, 4, REG_MAX, -1).transpose(2, 1).softmax(1)
        distances = self.dfl(bins).view(batch, 4, -1)
        before, after = distances.chunk(2, 1)
        low, high = self.anchors - before, self.anchors + after
        boxes = torch.cat([(low + high) / 2, high - low], 1) * self.strides
        return torch.cat([boxes, cls.sigmoid()], 1)


class YoloV8n(nn.Module):
    def __init__(self, size: int = 640):
        super().__init__()
        self.stem = nn.Sequential(conv(3, 16, 3, 2), conv(16, 32, 3, 2), C2f(32, 32, 1, True))
        self.p3 = nn.Sequential(conv(32, 64, 3, 2), C2f(64, 64, 2, True))
        self.p4 = nn.Sequential(conv(64, 128, 3, 2), C2f(128, 128, 2, True))
        self.p5 = nn.Sequential(conv(128, 256, 3, 2), C2f(256, 256, 1, True), SPPF(256))
        self.up4, self.up3 = C2f(384, 128, 1, False), C2f(192, 64, 1, False)
        self.shrink4, self.down4 = conv(64, 64, 3, 2), C2f(192, 128, 1, False)
        self.shrink5, self.down5 = conv(128, 128, 3, 2), C2f(384, 256, 1, False)
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.detect = Detect((64, 128, 256), size)

    def forward(self, x):
        p3 = self.p3(self.stem(x))
        p4 = self.p4(p3)
        p5 = self.p5(p4)
        n4 = self.up4(torch.cat([self.upsample(p5), p4], 1))
        n3 = self.up3(torch.cat([self.upsample(n4), p3], 1))
        n4 = self.down4(torch.cat([self.shrink4(n3), n4], 1))
        n5 = self.down5(torch.cat([self.shrink5(n4), p5], 1))
        return self.detect([n3, n4, n5])
