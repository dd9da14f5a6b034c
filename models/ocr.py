# SPDX-License-Identifier: Apache-2.0
"""Reading text in a picture with PaddleOCR's pair (rapidocr): a detector finds lines, a recogniser reads each one.

The picture is drawn here, with the font that comes in Pillow; nothing but numpy and Pillow is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from models.fetch import fetch

Runner = Callable[[np.ndarray], np.ndarray]
LINES = ["The quick brown fox", "jumps over 13 lazy dogs", "and compiles to 128 KB"]


def path(kind: str) -> Path:
    """kind: det, rec or cls."""
    name = {"det": "ch_PP-OCRv4_det_infer", "rec": "ch_PP-OCRv4_rec_infer", "cls": "ch_ppocr_mobile_v2.0_cls_infer"}[
        kind
    ]
    return fetch("rapidocr-onnxruntime") / "rapidocr_onnxruntime" / "models" / f"{name}.onnx"


def characters() -> list[str]:
    """The recogniser's classes, kept in its metadata: index 0 is CTC's blank, the last one a space."""
    import onnx

    model = onnx.load(path("rec"), load_external_data=False)
    (text,) = (p.value for p in model.metadata_props if p.key == "character")
    return ["", *text.splitlines(), " "]


def draw(lines: list[str] = LINES, width: int = 640, height: int = 320) -> np.ndarray:
    """Black text on white, uint8 [height, width, 3]."""
    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=40)
    for i, line in enumerate(lines):
        pen.text((30, 24 + i * (height - 30) // len(lines)), line, fill="black", font=font)
    return np.asarray(image)


def as_input(image: np.ndarray) -> np.ndarray:
    """uint8 [h, w, 3] → float32 [1, 3, h, w] in [-1, 1]."""
    return np.ascontiguousarray(((image.astype(np.float32) / 255 - 0.5) / 0.5).transpose(2, 0, 1)[None])


def line_boxes(probability: np.ndarray, threshold: float = 0.3, pad: int = 8) -> list[tuple[int, int, int, int]]:
    """(top, bottom, left, right) of each horizontal run of text in the detector's map [h, w]; pad: the detector marks
    the core of a line, narrower than its letters."""
    mask = probability > threshold
    rows = np.flatnonzero(np.diff(np.concatenate([[0], mask.any(1).astype(np.int8), [0]])))
    height, width = mask.shape
    boxes = []
    for top, bottom in zip(rows[::2], rows[1::2]):
        columns = np.flatnonzero(mask[top:bottom].any(0))
        if bottom - top >= 4 and len(columns):
            boxes.append(
                (max(0, top - pad), min(height, bottom + pad), max(0, columns[0] - pad), min(width, columns[-1] + pad))
            )
    return boxes


def line_input(image: np.ndarray) -> np.ndarray:
    """A cut-out line, scaled to the recogniser's height of 48."""
    scaled = Image.fromarray(image).resize(
        (max(8, round(image.shape[1] * 48 / image.shape[0])), 48), Image.Resampling.BILINEAR
    )
    return as_input(np.asarray(scaled))


def decode(scores: np.ndarray, classes: list[str]) -> str:
    """CTC, greedy: [time, classes] → text."""
    best = scores.argmax(-1)
    return "".join(classes[c] for i, c in enumerate(best) if c != 0 and (i == 0 or c != best[i - 1]))


def read(image: np.ndarray, detect: Runner, recognise: Runner, classes: list[str]) -> list[str]:
    """The lines of text in a picture. detect: [1,3,h,w] → [1,1,h,w]; recognise: [1,3,48,w] → [1,time,classes]."""
    boxes = line_boxes(detect(as_input(image))[0, 0])
    return [decode(recognise(line_input(image[t:b, left:r]))[0], classes) for t, b, left, r in boxes]
