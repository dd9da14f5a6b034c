# SPDX-License-Identifier: Apache-2.0
"""Images as CIFAR-10 has them, 3x32x32 and ten classes, drawn here: nothing is downloaded.

A shape of random place, size, angle and colour on a random gradient, under noise.
"""

from __future__ import annotations

import math
import sys

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ["disc", "ring", "square", "frame", "triangle", "star", "cross", "bar", "crescent", "arrow"]
Point = tuple[float, float]


def batch(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(float32 [count, 3, 32, 32] from -1 to 1, int64 [count])"""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, len(CLASSES), count)
    return np.stack([image(CLASSES[k], rng) for k in kinds]), kinds


def image(kind: str, rng: np.random.Generator) -> np.ndarray:
    behind, colour = _two_colours(rng)
    slope = rng.normal(0, 25, (2, 3))
    along = np.linspace(-1, 1, 32)
    pixels = behind + along[:, None, None] * slope[0] + along[None, :, None] * slope[1]
    mask = np.asarray(_mask(kind, rng), np.float32)[..., None] / 255
    pixels = pixels * (1 - mask) + colour * mask + rng.normal(0, 12, pixels.shape)
    return (pixels.clip(0, 255) / 127.5 - 1).astype(np.float32).transpose(2, 0, 1)


def _two_colours(rng: np.random.Generator) -> np.ndarray:
    """Far enough apart to be told from each other."""
    while True:
        colours = rng.integers(0, 256, (2, 3)).astype(np.float32)
        if np.abs(colours[0] - colours[1]).sum() > 180:
            return colours


def _mask(kind: str, rng: np.random.Generator) -> Image.Image:
    """The shape in white on black: drawn large and upright, then turned, scaled and moved."""
    large = Image.new("L", (128, 128))
    _draw(ImageDraw.Draw(large), kind)
    size = int(rng.integers(16, 29))
    small = large.rotate(float(rng.uniform(-25, 25)), Image.Resampling.BILINEAR).resize(
        (size, size), Image.Resampling.BOX
    )
    placed = Image.new("L", (32, 32))
    placed.paste(small, (int(rng.integers(0, 33 - size)), int(rng.integers(0, 33 - size))))
    return placed


def _draw(d: ImageDraw.ImageDraw, kind: str) -> None:
    if kind in ("disc", "ring", "crescent"):
        d.ellipse((20, 20, 108, 108), 255)
        if kind != "disc":
            d.ellipse((42, 42, 86, 86) if kind == "ring" else (44, 12, 120, 88), 0)
    elif kind in ("square", "frame"):
        d.rectangle((24, 24, 104, 104), 255)
        if kind == "frame":
            d.rectangle((44, 44, 84, 84), 0)
    elif kind in ("triangle", "star"):
        radii = [56] * 3 if kind == "triangle" else [58, 24] * 5
        d.polygon(_around(radii), 255)
    elif kind == "cross":
        d.rectangle((52, 18, 76, 110), 255)
        d.rectangle((18, 52, 110, 76), 255)
    elif kind == "bar":
        d.rectangle((14, 50, 114, 78), 255)
    elif kind == "arrow":
        d.polygon([(12, 52), (68, 52), (68, 28), (116, 64), (68, 100), (68, 76), (12, 76)], 255)


def _around(radii: list[int]) -> list[Point]:
    turn = 2 * math.pi / len(radii)
    return [(64 + r * math.sin(i * turn), 64 - r * math.cos(i * turn)) for i, r in enumerate(radii)]


if __name__ == "__main__":  # data.py FILE.png: eight of each, to look at
    rng = np.random.default_rng(0)
    rows = [np.concatenate([image(k, rng) for _ in range(8)], 2) for k in CLASSES]
    sheet = (np.concatenate(rows, 1).transpose(1, 2, 0) + 1) * 127.5
    Image.fromarray(sheet.astype(np.uint8)).resize((8 * 64, len(CLASSES) * 64)).save(sys.argv[1])
