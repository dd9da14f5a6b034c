# SPDX-License-Identifier: Apache-2.0
"""41 transformers architectures with tiny random weights: how to build one, and inputs for a batch and a length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

TEXT = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}
DECODER = {**TEXT, "num_key_value_heads": 2, "pad_token_id": 0}
VISION = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37, "image_size": 32,
          "patch_size": 8}  # fmt: skip


def ids(batch: int, length: int) -> dict[str, torch.Tensor]:
    mask = torch.ones(batch, length, dtype=torch.int64)
    mask[0, -1] = 0
    return {"input_ids": torch.randint(3, 90, (batch, length)), "attention_mask": mask}


def plain_ids(batch: int, length: int) -> dict[str, torch.Tensor]:
    return {"input_ids": torch.randint(3, 90, (batch, length))}


def encoder_decoder_ids(batch: int, length: int) -> dict[str, torch.Tensor]:
    return {**ids(batch, length), "decoder_input_ids": torch.randint(3, 90, (batch, length))}


def speech(batch: int, length: int) -> dict[str, torch.Tensor]:
    return {"input_values": torch.randn(batch, 400 + 80 * length)}


def image(size: int) -> Callable[[int, int], dict[str, torch.Tensor]]:
    return lambda batch, length: {"pixel_values": torch.randn(batch, 3, size, size)}


def clip_inputs(batch: int, length: int) -> dict[str, torch.Tensor]:
    return {**ids(batch, length), "pixel_values": torch.randn(batch, 3, 32, 32)}


def whisper_inputs(batch: int, length: int) -> dict[str, torch.Tensor]:
    return {"input_features": torch.randn(batch, 8, 60), "decoder_input_ids": torch.randint(3, 90, (batch, length))}


@dataclass
class Architecture:
    """model and config: class names in transformers; sequence: whether axis 1 of the token inputs is dynamic."""

    model: str
    config: str
    arguments: dict[str, Any]
    inputs: Callable[[int, int], dict[str, torch.Tensor]] = ids
    sequence: bool = True
    call: dict[str, Any] = field(default_factory=dict)

    def build(self) -> torch.nn.Module:
        import transformers

        torch.manual_seed(0)
        config = getattr(transformers, self.config)(**self.arguments)
        model = getattr(transformers, self.model)(config).eval()
        if not self.sequence:
            _enliven(model, self.example(4, 8))
        return model

    def example(self, batch: int, length: int) -> dict[str, Any]:
        return {**self.inputs(batch, length), **self.call}

    def dynamic_shapes(self, inputs: dict[str, Any]) -> dict[str, Any]:
        batch, free = torch.export.Dim("batch", min=1, max=64), torch.export.Dim.DYNAMIC
        shapes: dict[str, Any] = {}
        for name, tensor in inputs.items():
            if not isinstance(tensor, torch.Tensor):
                shapes[name] = None
                continue
            shapes[name] = {0: batch}
            if self.sequence and (name.endswith(("_ids", "_mask", "_values")) and tensor.ndim == 2):
                shapes[name][1] = free
        return shapes


def _enliven(model: torch.nn.Module, inputs: dict[str, Any]) -> None:
    """The initial weights of the vision models give all but constant outputs: draw ones that keep the signal, and let
    batch normalisation take the statistics of a run."""
    norms = [part for part in model.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, (2 / parameter[0].numel()) ** 0.5)
        for norm in norms:
            norm.weight.uniform_(0.5, 1.5)
            norm.train()
            norm.momentum = None
        model(**inputs)
        for norm in norms:
            norm.eval()


def _speech_config(**more: Any) -> dict[str, Any]:
    return {**TEXT, "conv_dim": (16, 16), "conv_stride": (4, 4), "conv_kernel": (8, 8), "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 2, "num_feat_extract_layers": 2, **more}  # fmt: skip


ARCHITECTURES: dict[str, Architecture] = {
    "Bert": Architecture("BertModel", "BertConfig", TEXT),
    "DistilBert": Architecture("DistilBertModel", "DistilBertConfig",
                               {"vocab_size": 99, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 37}),
    "Roberta": Architecture("RobertaModel", "RobertaConfig", TEXT),
    "DebertaV2": Architecture("DebertaV2Model", "DebertaV2Config",
                              {**TEXT, "relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"],
                               "max_position_embeddings": 64}),
    "Electra": Architecture("ElectraModel", "ElectraConfig", {**TEXT, "embedding_size": 32}),
    "ModernBert": Architecture("ModernBertModel", "ModernBertConfig", {**TEXT, "pad_token_id": 0}),
    "GPT2": Architecture("GPT2Model", "GPT2Config", {"vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head": 4},
                         call={"use_cache": False}),
    "Llama": Architecture("LlamaModel", "LlamaConfig", DECODER, call={"use_cache": False}),
    "Mistral": Architecture("MistralModel", "MistralConfig", DECODER, call={"use_cache": False}),
    "Qwen2": Architecture("Qwen2Model", "Qwen2Config", DECODER, call={"use_cache": False}),
    "Qwen3": Architecture("Qwen3Model", "Qwen3Config", {**DECODER, "head_dim": 8}, call={"use_cache": False}),
    "Gemma2": Architecture("Gemma2Model", "Gemma2Config", {**DECODER, "head_dim": 8}, call={"use_cache": False}),
    "Phi3": Architecture("Phi3Model", "Phi3Config", DECODER, call={"use_cache": False}),
    "OPT": Architecture("OPTModel", "OPTConfig",
                        {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 37,
                         "word_embed_proj_dim": 32, "max_position_embeddings": 64}, call={"use_cache": False}),
    "GPTNeoX": Architecture("GPTNeoXModel", "GPTNeoXConfig", TEXT, call={"use_cache": False}),
    "Mamba": Architecture("MambaModel", "MambaConfig",
                          {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "time_step_rank": 4},
                          plain_ids, call={"use_cache": False}),
    "Mixtral": Architecture("MixtralModel", "MixtralConfig", {**DECODER, "intermediate_size": 64, "num_local_experts": 4}, call={"use_cache": False}),
    "T5": Architecture("T5Model", "T5Config",
                       {"vocab_size": 99, "d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 4},
                       encoder_decoder_ids, call={"use_cache": False}),
    "Bart": Architecture("BartModel", "BartConfig",
                         {"vocab_size": 99, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
                          "decoder_attention_heads": 4, "encoder_ffn_dim": 37, "decoder_ffn_dim": 37},
                         encoder_decoder_ids, call={"use_cache": False}),
    "Marian": Architecture("MarianModel", "MarianConfig",
                           {"vocab_size": 99, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
                            "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 37,
                            "decoder_ffn_dim": 37, "pad_token_id": 0, "decoder_start_token_id": 0, "eos_token_id": 1},
                           encoder_decoder_ids, call={"use_cache": False}),
    "Whisper": Architecture("WhisperModel", "WhisperConfig",
                            {"vocab_size": 99, "num_mel_bins": 8, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
                             "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 37,
                             "decoder_ffn_dim": 37, "max_source_positions": 30, "max_target_positions": 64, "pad_token_id": 0,
                             "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1},
                            whisper_inputs, call={"use_cache": False}),
    "Wav2Vec2": Architecture("Wav2Vec2Model", "Wav2Vec2Config", _speech_config(), speech),
    "Hubert": Architecture("HubertModel", "HubertConfig", _speech_config(), speech),
    "VITS": Architecture("VitsModel", "VitsConfig",
                         {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 37,
                          "flow_size": 32, "spectrogram_bins": 33, "upsample_initial_channel": 64, "prior_encoder_num_flows": 2,
                          "duration_predictor_num_flows": 2, "noise_scale": 0.0, "noise_scale_duration": 0.0}, ids),
    "ViT": Architecture("ViTModel", "ViTConfig", VISION, image(32), False),
    "Dinov2": Architecture("Dinov2Model", "Dinov2Config", {**VISION, "mlp_ratio": 2}, image(32), False),
    "ResNet": Architecture("ResNetModel", "ResNetConfig",
                           {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}, image(32), False),
    "MobileNetV1": Architecture("MobileNetV1Model", "MobileNetV1Config", {"depth_multiplier": 0.25, "min_depth": 8}, image(64),
                                False),
    "MobileNetV2": Architecture("MobileNetV2Model", "MobileNetV2Config", {"depth_multiplier": 0.25}, image(64), False),
    "EfficientNet": Architecture("EfficientNetModel", "EfficientNetConfig",
                                 {"width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 320, "image_size": 64},
                                 image(64), False),
    "ConvNext": Architecture("ConvNextModel", "ConvNextConfig", {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
                             image(64), False),
    "ConvNextV2": Architecture("ConvNextV2Model", "ConvNextV2Config", {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
                               image(64), False),
    "Swin": Architecture("SwinModel", "SwinConfig",
                         {"embed_dim": 16, "depths": [1, 2], "num_heads": [2, 2], "window_size": 4, "image_size": 32,
                          "patch_size": 2}, image(32), False),
    "RegNet": Architecture("RegNetModel", "RegNetConfig",
                           {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "groups_width": 4}, image(32), False),
    "MobileViT": Architecture("MobileViTModel", "MobileViTConfig",
                              {"hidden_sizes": [16, 16, 24], "neck_hidden_sizes": [8, 8, 16, 16, 24, 24, 32], "image_size": 64},
                              image(64), False),
    "Segformer": Architecture("SegformerModel", "SegformerConfig",
                              {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 2, 2, 4]},
                              image(64), False),
    "YOLOS": Architecture("YolosModel", "YolosConfig", {**VISION, "image_size": [32, 32], "num_detection_tokens": 5}, image(32),
                          False),
    "DETR": Architecture("DetrModel", "DetrConfig",
                         {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
                          "decoder_attention_heads": 4, "encoder_ffn_dim": 37, "decoder_ffn_dim": 37, "num_queries": 6,
                          "use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None,
                          "backbone_config": {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16],
                                              "depths": [1, 1], "out_features": ["stage2"]}}, image(32), False),
    "RTDetr": Architecture("RTDetrModel", "RTDetrConfig",
                           {"d_model": 32, "encoder_hidden_dim": 32, "encoder_layers": 1, "decoder_layers": 2,
                            "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 37,
                            "decoder_ffn_dim": 37, "num_queries": 6, "encoder_in_channels": [8, 16, 24], "num_denoising": 0,
                            "use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None,
                            "decoder_in_channels": [32, 32, 32], "feat_strides": [4, 8, 16],
                            "backbone_config": {"model_type": "rt_detr_resnet", "embedding_size": 8, "hidden_sizes": [8, 16, 24],
                                                "depths": [1, 1, 1], "layer_type": "basic",
                                                "out_features": ["stage1", "stage2", "stage3"]}}, image(64), False),
    "CLIP": Architecture("CLIPModel", "CLIPConfig",
                         {"text_config": {**TEXT, "max_position_embeddings": 64, "eos_token_id": 98, "pad_token_id": 0},
                          "vision_config": VISION, "projection_dim": 16}, clip_inputs),
    "DPT": Architecture("DPTModel", "DPTConfig", {**VISION, "backbone_out_indices": [0, 1, 1, 1]}, image(32), False),
}  # fmt: skip
