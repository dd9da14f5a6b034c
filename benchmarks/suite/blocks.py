# SPDX-License-Identifier: Apache-2.0
"""What the convolutional networks share, and how they get weights that give outputs worth comparing."""

from __future__ import annotations

import torch
from torch import nn


class ConvNorm(nn.Sequential):
    """Convolution (same padding unless given), batch norm, activation (None: none)."""

    def __init__(self, cin, cout, kernel=1, stride=1, groups=1, act=nn.ReLU, padding=None, eps=1e-5):
        padding = kernel // 2 if padding is None else padding
        layers = [nn.Conv2d(cin, cout, kernel, stride, padding, groups=groups, bias=False), nn.BatchNorm2d(cout, eps)]
        super().__init__(*layers, *([act()] if act else []))


class Classifier(nn.Sequential):
    """Global average, flatten, linear."""

    def __init__(self, channels: int, classes: int = 1000):
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def settle(module: nn.Module, example: torch.Tensor) -> nn.Module:
    """Give every batch norm scales near 1 and the statistics it sees on `example`; returns the module in eval mode.

    With the initial statistics (0, 1) fifty random layers let activations grow or die, and relative errors mean nothing.
    """
    for m in module.modules():
        if isinstance(m, nn.Conv2d) and m.weight.requires_grad:
            nn.init.kaiming_normal_(m.weight, mode="fan_in", nonlinearity="relu")
        elif isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.normal_(m.bias, std=0.1)
            m.momentum = None  # the plain mean over what is seen, which is one batch
    module.train()
    with torch.no_grad():
        module(example)
    return module.eval()
