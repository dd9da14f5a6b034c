# SPDX-License-Identifier: Apache-2.0
"""The list: a name, how to build the module, and what it is called with. torch is imported when one is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Benchmark:
    """build: the module with random weights, not yet in eval mode. tokens: length of the ids; else shape is an image's.

    dynamic: the batch, and of texts the length, is free in the exported model. quantized: "", or how the model `of` becomes int8.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    inputs: tuple[str, ...]
    dynamic: bool = False
    quantized: str = ""
    of: str = ""

    @property
    def tokens(self) -> bool:
        return "ids" in self.inputs[0]


def _from(module: str, name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        from importlib import import_module

        return getattr(import_module(f"suite.{module}"), name)()

    return build


TEXT, IDS, PIXELS, IMAGE = ("input_ids", "attention_mask"), ("ids",), ("pixel_values",), ("x",)

_ALL = [
    Benchmark("resnet18", _from("convnets", "resnet18"), (1, 3, 224, 224), IMAGE),
    Benchmark("resnet50", _from("convnets", "resnet50"), (1, 3, 224, 224), IMAGE),
    Benchmark("mobilenet_v2", _from("convnets", "mobilenet_v2"), (1, 3, 224, 224), IMAGE),
    Benchmark("efficientnet_lite0", _from("convnets", "efficientnet_lite0"), (1, 3, 224, 224), IMAGE),
    Benchmark("convnext_t", _from("sequence", "convnext_t"), (1, 3, 224, 224), PIXELS),
    Benchmark("unet_w32_256", _from("convnets", "UNet"), (1, 3, 256, 256), IMAGE),
    Benchmark("vgg_unet_320", _from("convnets", "VggUNet"), (1, 3, 320, 320), IMAGE),
    Benchmark("yolov8n_640", _from("yolo", "YoloV8n"), (1, 3, 640, 640), IMAGE),
    Benchmark("alexnet_227", _from("convnets", "alexnet"), (1, 3, 227, 227), IMAGE),
    Benchmark("minilm_l6_32", _from("sequence", "minilm_l6"), (1, 32), TEXT),
    Benchmark("distilbert_128", _from("sequence", "distilbert"), (1, 128), TEXT),
    Benchmark("bert_base_128", _from("sequence", "bert"), (1, 128), TEXT),
    Benchmark("vit_b16", _from("sequence", "vit_b16"), (1, 3, 224, 224), PIXELS),
    Benchmark("swin_t", _from("sequence", "swin_t"), (1, 3, 224, 224), PIXELS),
    Benchmark("gpt2_64", _from("sequence", "gpt2"), (1, 64), TEXT),
    Benchmark("lstm_classifier_64", _from("sequence", "LstmClassifier"), (1, 64), IDS),
    Benchmark("mlp", _from("sequence", "mlp"), (1, 784), IMAGE),
]
MODELS: dict[str, Benchmark] = {b.name: b for b in _ALL}


def _quantized(name: str, how: str) -> Benchmark:
    of = MODELS[name]
    return replace(of, name=f"{name}_{how}", quantized=how, of=name)


# The same networks in int8: the same file for every runtime.
QUANTIZED = {
    b.name: b
    for b in [
        *(_quantized(n, "qdq") for n in """resnet18 resnet50 mobilenet_v2 efficientnet_lite0 unet_w32_256 yolov8n_640
            minilm_l6_32 bert_base_128 vit_b16""".split()),
        *(_quantized(n, "dynamic") for n in ("minilm_l6_32", "bert_base_128")),
    ]
}  # fmt: skip

# With a free batch, and free lengths: for the cost of a new length, and for servers.
DYNAMIC = {
    "mlp_dynamic": Benchmark("mlp_dynamic", _from("sequence", "mlp"), (1, 784), IMAGE, dynamic=True),
    "minilm_l6_embedding": Benchmark(
        "minilm_l6_embedding", _from("sequence", "minilm_l6_embedding"), (1, 32), TEXT, dynamic=True
    ),
    "minilm_l6_dynamic": Benchmark("minilm_l6_dynamic", _from("sequence", "minilm_l6"), (1, 32), TEXT, dynamic=True),
    "bert_base_dynamic": Benchmark("bert_base_dynamic", _from("sequence", "bert"), (1, 128), TEXT, dynamic=True),
}
