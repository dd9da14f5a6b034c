# SPDX-License-Identifier: Apache-2.0
"""Image classifiers and a segmenter, as their papers give them."""

from __future__ import annotations

from itertools import pairwise

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


class VggUNet(nn.Module):
    """The VGG16 U-Net of text detectors such as CRAFT (Baek et al. 2019): taps after conv2_2, conv3_2, conv4_2, conv5_2,
    a dilated block below, bilinear steps up, two maps at half the resolution."""

    def __init__(self) -> None:
        super().__init__()

        def convs(*widths: int) -> list[nn.Module]:
            return [ConvNorm(a, b, 3) for a, b in pairwise(widths)]

        def pool() -> nn.Module:
            return nn.MaxPool2d(2)

        self.down = nn.ModuleList([
            nn.Sequential(*convs(3, 64, 64), pool(), *convs(64, 128, 128)),
            nn.Sequential(pool(), *convs(128, 256, 256)),
            nn.Sequential(*convs(256, 256), pool(), *convs(256, 512, 512)),
            nn.Sequential(*convs(512, 512), pool(), *convs(512, 512, 512)),
        ])  # fmt: skip
        self.bottom = nn.Sequential(
            nn.MaxPool2d(3, 1, 1), nn.Conv2d(512, 1024, 3, padding=6, dilation=6), nn.Conv2d(1024, 1024, 1)
        )
        steps = [(1024 + 512, 512, 256), (256 + 512, 256, 128), (128 + 256, 128, 64), (64 + 128, 64, 32)]
        self.up = nn.ModuleList([nn.Sequential(ConvNorm(a, b), ConvNorm(b, c, 3)) for a, b, c in steps])
        head = [m for a, b in [(32, 32), (32, 32), (32, 16)] for m in (nn.Conv2d(a, b, 3, padding=1), nn.ReLU())]
        self.head = nn.Sequential(*head, nn.Conv2d(16, 16, 1), nn.ReLU(), nn.Conv2d(16, 2, 1))

    def forward(self, x):
        taps = []
        for down in self.down:
            x = down(x)
            taps.append(x)
        x = self.bottom(x)
        for up, tap in zip(self.up, reversed(taps), strict=True):
            if x.shape[2:] != tap.shape[2:]:
                x = nn.functional.interpolate(x, size=tap.shape[2:], mode="bilinear", align_corners=False)
            x = up(torch.cat([x, tap], 1))
        return self.head(x)
