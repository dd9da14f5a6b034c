# SPDX-License-Identifier: Apache-2.0
"""Transformers from the configurations of their checkpoints, an LSTM classifier and an MLP."""

from __future__ import annotations

from typing import Any

from torch import nn


class Outputs(nn.Module):
    """A transformers model that gives one named output instead of a dict, cache and all."""

    def __init__(self, model: nn.Module, output: str, names: tuple[str, ...]):
        super().__init__()
        self.model, self.output, self.names = model, output, names

    def forward(self, first, second=None):  # not *inputs: torch.export wants one dynamic shape per argument
        return getattr(self.model(**dict(zip(self.names, (first, second))), **self.options()), self.output)

    def options(self) -> dict[str, Any]:
        return {"use_cache": False} if getattr(self.model.config, "model_type", "") == "gpt2" else {}


TEXT = ("input_ids", "attention_mask")
IMAGE = ("pixel_values",)


def bert(output: str = "last_hidden_state", **config: Any) -> nn.Module:
    from transformers import BertConfig, BertModel

    return Outputs(BertModel(BertConfig(**config)), output, TEXT)


def minilm_l6() -> nn.Module:
    return bert(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)


class MeanPooled(nn.Module):
    """Sentence embeddings as sentence-transformers makes them: the mean over real tokens, of length 1."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, ids, mask):
        weights = mask.unsqueeze(-1).float()
        total = (self.model(ids, mask) * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
        return nn.functional.normalize(total, dim=1)


def minilm_l6_embedding() -> nn.Module:
    return MeanPooled(minilm_l6())


def distilbert() -> nn.Module:
    from transformers import DistilBertConfig, DistilBertModel

    return Outputs(DistilBertModel(DistilBertConfig()), "last_hidden_state", TEXT)


def gpt2() -> nn.Module:
    """Prefill: logits of every position, no cache kept."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return Outputs(GPT2LMHeadModel(GPT2Config()), "logits", TEXT)


def vit_b16() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    return Outputs(ViTForImageClassification(ViTConfig(num_labels=1000)), "logits", IMAGE)


def swin_t() -> nn.Module:
    from transformers import SwinConfig, SwinForImageClassification

    return Outputs(SwinForImageClassification(SwinConfig(num_labels=1000)), "logits", IMAGE)


def convnext_t() -> nn.Module:
    """Layer scale starts at 1e-6, with which no block would matter to the output; here it is 1."""
    from transformers import ConvNextConfig, ConvNextForImageClassification

    config = ConvNextConfig(num_labels=1000, layer_scale_init_value=1.0)
    return Outputs(ConvNextForImageClassification(config), "logits", IMAGE)


class LstmClassifier(nn.Module):
    """Embedding 128, two LSTM layers of 128, the last step to 2 classes."""

    def __init__(self, vocabulary: int = 10000, width: int = 128, layers: int = 2, classes: int = 2):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, width, layers, batch_first=True)
        self.head = nn.Linear(width, classes)

    def forward(self, ids):
        return self.head(self.lstm(self.embed(ids))[0][:, -1])


def mlp() -> nn.Module:
    widths = (784, 128, 64, 10)
    layers: list[nn.Module] = []
    for a, b in zip(widths, widths[1:]):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
