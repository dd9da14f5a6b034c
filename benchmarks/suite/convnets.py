# SPDX-License-Identifier: Apache-2.0
"""Image classifiers and a segmenter, as their papers give them."""

from __future__ import annotations

import torch
from torch import nn

from suite.blocks import Classifier, ConvNorm


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, cin: int, width: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(ConvNorm(cin, width, 3, stride), ConvNorm(width, width, 3, act=None))
        self.skip = ConvNorm(cin, width, 1, stride, act=None) if stride > 1 or cin != width else nn.Identity()

    def forward(self, x):
        return torch.relu(self.body(x) + self.skip(x))


class Bottleneck(nn.Module):
    """The stride is in the 3x3, as in ResNet v1.5."""

    expansion = 4

    def __init__(self, cin: int, width: int, stride: int):
        super().__init__()
        out = width * self.expansion
        self.body = nn.Sequential(
            ConvNorm(cin, width), ConvNorm(width, width, 3, stride), ConvNorm(width, out, act=None)
        )
        self.skip = ConvNorm(cin, out, 1, stride, act=None) if stride > 1 or cin != out else nn.Identity()

    def forward(self, x):
        return torch.relu(self.body(x) + self.skip(x))


def resnet(block: type, depths: tuple[int, ...]) -> nn.Module:
    layers: list[nn.Module] = [ConvNorm(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for stage, depth in enumerate(depths):
        for i in range(depth):
            layers.append(block(channels, 64 << stage, 2 if stage and i == 0 else 1))
            channels = (64 << stage) * block.expansion
    return nn.Sequential(*layers, Classifier(channels))


def resnet18() -> nn.Module:
    return resnet(BasicBlock, (2, 2, 2, 2))


def resnet50() -> nn.Module:
    return resnet(Bottleneck, (3, 4, 6, 3))


class InvertedResidual(nn.Module):
    def __init__(self, cin: int, cout: int, kernel: int, stride: int, expand: int, eps: float = 1e-5):
        super().__init__()
        mid = cin * expand
        layers = [ConvNorm(cin, mid, act=nn.ReLU6, eps=eps)] if expand > 1 else []
        layers.append(ConvNorm(mid, mid, kernel, stride, groups=mid, act=nn.ReLU6, eps=eps))
        self.body = nn.Sequential(*layers, ConvNorm(mid, cout, act=None, eps=eps))
        self.adds = stride == 1 and cin == cout

    def forward(self, x):
        return x + self.body(x) if self.adds else self.body(x)


def inverted_residuals(stages, channels: int, eps: float = 1e-5) -> list[nn.Module]:
    """stages: (expand, channels, repeats, stride, kernel)."""
    layers: list[nn.Module] = []
    for expand, out, repeats, stride, kernel in stages:
        for i in range(repeats):
            layers.append(InvertedResidual(channels, out, kernel, stride if i == 0 else 1, expand, eps))
            channels = out
    return layers


def mobilenet_v2() -> nn.Module:
    stages = [(1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 32, 3, 2, 3), (6, 64, 4, 2, 3), (6, 96, 3, 1, 3),
              (6, 160, 3, 2, 3), (6, 320, 1, 1, 3)]  # fmt: skip
    body = inverted_residuals(stages, 32)
    return nn.Sequential(
        ConvNorm(3, 32, 3, 2, act=nn.ReLU6), *body, ConvNorm(320, 1280, act=nn.ReLU6), Classifier(1280)
    )


def efficientnet_lite0() -> nn.Module:
    """No squeeze-and-excitation and ReLU6, which is what makes it lite; stem and head are not scaled."""
    stages = [(1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5),
              (6, 192, 4, 2, 5), (6, 320, 1, 1, 3)]  # fmt: skip
    body = inverted_residuals(stages, 32, eps=1e-3)
    stem, head = ConvNorm(3, 32, 3, 2, act=nn.ReLU6, eps=1e-3), ConvNorm(320, 1280, act=nn.ReLU6, eps=1e-3)
    return nn.Sequential(stem, *body, head, Classifier(1280))


def alexnet() -> nn.Module:
    """The one-tower form ("One weird trick"), without the dropout of training."""
    relu, pool = nn.ReLU, lambda: nn.MaxPool2d(3, 2)
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, 2), relu(), pool(),
        nn.Conv2d(64, 192, 5, padding=2), relu(), pool(),
        nn.Conv2d(192, 384, 3, padding=1), relu(),
        nn.Conv2d(384, 256, 3, padding=1), relu(),
        nn.Conv2d(256, 256, 3, padding=1), relu(), pool(),
        nn.Flatten(), nn.Linear(256 * 6 * 6, 4096), relu(), nn.Linear(4096, 4096), relu(), nn.Linear(4096, 1000),
    )  # fmt: skip


def double(cin: int, cout: int) -> nn.Module:
    return nn.Sequential(ConvNorm(cin, cout, 3), ConvNorm(cout, cout, 3))


class UNet(nn.Module):
    """Four levels down and up, transposed convolutions between them, w channels at the top."""

    def __init__(self, w: int = 32, classes: int = 2):
        super().__init__()
        self.down = nn.ModuleList([double(3, w), *[double(w << i, w << (i + 1)) for i in range(4)]])
        self.up = nn.ModuleList([nn.ConvTranspose2d(w << (i + 1), w << i, 2, 2) for i in reversed(range(4))])
        self.merge = nn.ModuleList([double(w << (i + 1), w << i) for i in reversed(range(4))])
        self.head = nn.Conv2d(w, classes, 1)

    def forward(self, x):
        skips = []
        for i, down in enumerate(self.down):
            x = down(torch.max_pool2d(x, 2) if i else x)
            skips.append(x)
        for up, merge, skip in zip(self.up, self.merge, reversed(skips[:-1])):
            x = merge(torch.cat([skip, up(x)], 1))
        return self.head(x)
