# SPDX-License-Identifier: Apache-2.0
"""Trains an AlexNet for 32x32 images in two steps, and exports each state to ONNX.

Writes v1.onnx (trained briefly), v2.onnx (trained on), and test.npz: images that neither has seen, their classes, and what
torch answers to them.
"""

from __future__ import annotations

import logging

import numpy as np
import torch
from data import CLASSES, batch
from torch import nn

import fastinfer as fi


def alexnet(classes: int) -> nn.Sequential:
    """Five convolutions and three fully connected layers, as in Krizhevsky 2012, with strides and widths for 32x32, and
    batch normalization, without which a few hundred steps are too few."""

    def conv(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *conv(3, 32, stride=2), nn.MaxPool2d(2),
        *conv(32, 64), nn.MaxPool2d(2),
        *conv(64, 96), *conv(96, 64), *conv(64, 64),
        nn.Flatten(),
        nn.Dropout(0.2), nn.Linear(64 * 4 * 4, 256), nn.ReLU(),
        nn.Dropout(0.2), nn.Linear(256, 256), nn.ReLU(),
        nn.Linear(256, classes),
    )  # fmt: skip


def train(model: nn.Module, images: torch.Tensor, classes: torch.Tensor, steps: int, rate: float) -> None:
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), rate)
    for _ in range(steps):
        rows = torch.randint(0, len(images), (64,))
        loss = nn.functional.cross_entropy(model(images[rows]), classes[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()


def main() -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of packages that this model does not need
    torch.manual_seed(0)
    images, classes = map(torch.from_numpy, batch(6000, seed=1))
    test_images, test_classes = map(torch.from_numpy, batch(500, seed=2))
    model = alexnet(len(CLASSES))
    answers = {}
    for version, steps in (("1", 150), ("2", 300)):
        train(model, images, classes, steps, 1e-3)
        with torch.no_grad():
            answers[f"torch_{version}"] = (scores := model(test_images)).numpy()
        accuracy = (scores.argmax(1) == test_classes).float().mean()
        print(f"version {version}: {accuracy:.1%} of {len(test_images)} test images are right (chance: 10.0%)")
        torch.onnx.export(
            model, (images[:2],), f"v{version}.onnx", dynamo=True, external_data=False, verbose=False,
            input_names=["image"], output_names=["scores"], dynamic_shapes=({0: torch.export.Dim("rows")},),
        )  # fmt: skip
        ours = fi.compile(f"v{version}.onnx").run({"image": test_images.numpy()})["scores"]
        print(f"  compiled here: greatest difference from torch {np.abs(ours - scores.numpy()).max():.1e}")
    np.savez("test.npz", inputs=test_images.numpy(), classes=test_classes.numpy(), **answers)


if __name__ == "__main__":
    main()
