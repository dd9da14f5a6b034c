# SPDX-License-Identifier: Apache-2.0
"""Real exports: what torch's exporter writes is recognised, and computes the same afterwards."""

from __future__ import annotations

import copy
from collections import Counter

import pytest

from fastinfer import passes
from fastinfer.passes import verify

from .graphs import counts, run_onnxruntime

torch = pytest.importorskip("torch", reason="torch is an extra; these models are torch's")
pytest.importorskip("onnxscript", reason="torch's exporter needs onnxscript")
nn = torch.nn
AUTO = torch.export.Dim.DYNAMIC


def _export(module: torch.nn.Module, example: tuple, dynamic: tuple | None, resized: tuple) -> Counter[str]:
    """Exports, rewrites with verification, compares with torch at another shape; returns the operator counts."""
    from fastinfer import frontend

    with torch.no_grad():
        for name, p in [*module.named_parameters(), *module.named_buffers()]:
            if p.is_floating_point() and p.dim() == 1 and "inv_freq" not in name:  # zero biases would be folded away
                p.copy_(torch.rand_like(p) * 0.5 + (0.75 if "weight" in name or "var" in name else -0.25))
        program = torch.onnx.export(module.eval(), example, dynamo=True, dynamic_shapes=dynamic, verbose=False)
        model = frontend.load(program.model_proto)
        passes.run_pipeline(copy.copy(model).clone(), verify=True)
        passes.run_pipeline(model)
        expected = module(*resized).numpy()
    feeds = {v.name: x.numpy() for v, x in zip(model.graph.inputs, resized)}
    verify.check_results([expected], run_onnxruntime(model, feeds), 1e-5)
    return counts(model)


def _conv(i: int, o: int, k: int, stride: int = 1, groups: int = 1, act: type | None = nn.ReLU) -> nn.Sequential:
    layers = [nn.Conv2d(i, o, k, stride, k // 2, groups=groups, bias=False), nn.BatchNorm2d(o)]
    return nn.Sequential(*layers, *([act()] if act else []))


class Residual(nn.Module):
    def __init__(self, i: int, o: int, stride: int):
        super().__init__()
        self.a, self.b = _conv(i, o, 3, stride), _conv(o, o, 3, act=None)
        self.short = _conv(i, o, 1, stride, act=None) if stride > 1 else nn.Identity()

    def forward(self, x):
        return torch.relu(self.b(self.a(x)) + self.short(x))


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            _conv(3, 8, 7, 2), nn.MaxPool2d(3, 2, 1), Residual(8, 8, 1), Residual(8, 16, 2), nn.AdaptiveAvgPool2d(1)
        )
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        return self.head(torch.flatten(self.body(x), 1))


class Inverted(nn.Module):
    def __init__(self, i: int, o: int, act: type, squeeze: bool):
        super().__init__()
        self.a = nn.Sequential(_conv(i, 2 * i, 1, act=act), _conv(2 * i, 2 * i, 3, 1, 2 * i, act=act))
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(2 * i, 4, 1), act(), nn.Conv2d(4, 2 * i, 1), nn.Sigmoid()
        )
        self.squeeze, self.out, self.same = squeeze, _conv(2 * i, o, 1, act=None), i == o

    def forward(self, x):
        y = self.a(x)
        y = self.out(y * self.gate(y) if self.squeeze else y)
        return x + y if self.same else y


class MobileNet(nn.Module):
    def __init__(self, act: type, squeeze: bool):
        super().__init__()
        self.body = nn.Sequential(
            _conv(3, 8, 3, 2, act=act), Inverted(8, 8, act, squeeze), Inverted(8, 12, act, squeeze)
        )
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        return self.head(self.body(x).mean([2, 3]))


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.low, self.up = _conv(3, 8, 3), _conv(8, 16, 3), nn.ConvTranspose2d(16, 8, 2, 2)
        self.out = nn.Sequential(_conv(16, 8, 3), nn.Conv2d(8, 1, 1))

    def forward(self, x):
        a = self.down(x)
        return self.out(torch.cat([self.up(self.low(nn.functional.max_pool2d(a, 2))), a], 1))


BATCH = ({0: AUTO},)


@pytest.mark.parametrize(
    ("module", "convolutions"),
    [
        (lambda: ResNet(), 6),
        (lambda: MobileNet(nn.ReLU6, False), 7),
        (lambda: MobileNet(nn.SiLU, True), 11),
        (lambda: MobileNet(nn.Hardswish, True), 11),
    ],
)
def test_classifiers_keep_no_transpose(module, convolutions: int) -> None:
    torch.manual_seed(0)
    found = _export(module(), (torch.randn(2, 3, 32, 32),), BATCH, (torch.randn(3, 3, 32, 32),))
    assert found["fastinfer.Conv"] == convolutions and found["Transpose"] == 0
    assert not any(
        found[op] for op in ("Conv", "BatchNormalization", "Relu", "Clip", "Add", "HardSwish", "Sigmoid", "Gemm")
    )


def test_a_u_net_keeps_a_reshape_alone() -> None:
    torch.manual_seed(0)
    found = _export(UNet(), (torch.randn(2, 3, 16, 16),), BATCH, (torch.randn(1, 3, 16, 16),))
    assert found["fastinfer.Conv"] == 4 and found["fastinfer.ConvTranspose"] == 1
    assert found["Transpose"] == 0 and found["Reshape"] == 1  # one channel comes out


def test_multi_head_attention_of_torch_loses_all_transposes() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, activation="gelu")
    module = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    found = _export(module, (torch.randn(2, 6, 32),), ({0: AUTO, 1: AUTO},), (torch.randn(3, 9, 32),))
    assert found["fastinfer.Attention"] == 2 and found["Transpose"] == 0 and found["Softmax"] == 0


# ------------------------------------------------------------------------------------------------------ transformers

SMALL = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)
TEXT = dict(**SMALL, vocab_size=50, max_position_embeddings=32)


class Called(nn.Module):
    def __init__(self, inner: nn.Module, *names: str):
        super().__init__()
        self.inner, self.names = inner, names

    def forward(self, x, mask):
        return self.inner(**dict(zip(self.names, (x, mask)))).last_hidden_state


class Seen(nn.Module):
    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x).last_hidden_state


def _text(name: str, **config) -> Counter[str]:
    t = pytest.importorskip("transformers", reason="architectures come from transformers")
    torch.manual_seed(0)
    module = Called(getattr(t, f"{name}Model")(getattr(t, f"{name}Config")(**config)), "input_ids", "attention_mask")

    def ids(batch: int, length: int) -> tuple:
        mask = torch.ones(batch, length, dtype=torch.int64)
        mask[0, length // 2 :] = 0
        return torch.randint(0, 50, (batch, length)), mask

    dynamic = {0: AUTO, 1: AUTO}
    return _export(module, ids(2, 7), (dynamic, dynamic), ids(3, 10))


def test_bert() -> None:
    for attention in ("sdpa", "eager"):
        found = _text("Bert", **TEXT, attn_implementation=attention)
        assert (
            found["fastinfer.Attention"] == 2 and found["LayerNormalization"] == 5 and found["fastinfer.MatMul"] == 12
        )
        assert not any(found[op] for op in ("MatMul", "Gelu", "Transpose", "Softmax"))


def test_distilbert() -> None:
    found = _text("DistilBert", dim=32, n_layers=2, n_heads=4, hidden_dim=48, vocab_size=50, max_position_embeddings=32)
    assert found["fastinfer.Attention"] == 2 and found["Transpose"] == 0


def test_gpt2() -> None:
    found = _text("GPT2", n_embd=32, n_layer=2, n_head=4, vocab_size=50, n_positions=32, use_cache=False)
    assert found["fastinfer.Attention"] == 2 and found["fastinfer.MatMul"] == 8
    assert not any(found[op] for op in ("Tanh", "Gelu", "Gemm", "Transpose"))


def test_llama_keeps_its_two_key_heads() -> None:
    found = _text("Llama", **TEXT, num_key_value_heads=2, use_cache=False)
    assert found["fastinfer.Attention"] == 2 and found["Softmax"] == 0 and found["Transpose"] == 0
    assert found["RMSNormalization"] + found["fastinfer.SkipRMSNorm"] == 5 and found["Pow"] == 0


def test_gemma2_caps_its_scores() -> None:
    found = _text("Gemma2", **TEXT, num_key_value_heads=2, head_dim=8, use_cache=False)
    assert found["fastinfer.Attention"] == 2 and found["Tanh"] == 0


def test_t5_encoder() -> None:
    t = pytest.importorskip("transformers", reason="architectures come from transformers")
    config = t.T5Config(d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, vocab_size=50)
    torch.manual_seed(0)
    module = Called(t.T5EncoderModel(config), "input_ids", "attention_mask")
    mask = torch.ones(2, 7, dtype=torch.int64)
    dynamic = {0: AUTO, 1: AUTO}
    inputs = (torch.randint(0, 50, (2, 7)), mask)
    found = _export(
        module, inputs, (dynamic, dynamic), (torch.randint(0, 50, (3, 9)), torch.ones(3, 9, dtype=torch.int64))
    )
    assert found["fastinfer.Attention"] == 2 and found["RMSNormalization"] + found["fastinfer.SkipRMSNorm"] == 5


def test_deberta() -> None:
    assert _text("DebertaV2", **TEXT)["fastinfer.Attention"] == 2


@pytest.mark.parametrize("name", ["ViT", "ConvNext", "Swin"])
def test_vision(name: str) -> None:
    t = pytest.importorskip("transformers", reason="architectures come from transformers")
    config = {
        "ViT": lambda: t.ViTConfig(**SMALL, image_size=32, patch_size=8),
        "ConvNext": lambda: t.ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1]),
        "Swin": lambda: t.SwinConfig(
            image_size=32, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4
        ),
    }[name]()
    torch.manual_seed(0)
    batch = 2 if name == "Swin" else 3  # Swin exports with a fixed batch only
    dynamic = None if name == "Swin" else BATCH
    found = _export(
        Seen(getattr(t, f"{name}Model")(config)),
        (torch.randn(2, 3, 32, 32),),
        dynamic,
        (torch.randn(batch, 3, 32, 32),),
    )
    assert not any(found[op] for op in ("Gelu", "Softmax", "Conv", "ReduceMean"))
    if name == "ViT":
        assert found["fastinfer.Attention"] == 2 and found["Transpose"] == 0
    elif name == "ConvNext":
        assert found["LayerNormalization"] == 9 and found["Transpose"] == 0 and found["fastinfer.Conv"] == 9
    else:
        assert found["fastinfer.Attention"] == 4


def test_the_pipeline_is_quick() -> None:
    """BERT-base's graph (12 layers, weights made small) in well under two seconds."""
    import time

    from fastinfer import frontend

    t = pytest.importorskip("transformers", reason="architectures come from transformers")
    config = t.BertConfig(
        hidden_size=48, num_hidden_layers=12, num_attention_heads=12, intermediate_size=64, vocab_size=50
    )
    module = Called(t.BertModel(config).eval(), "input_ids", "attention_mask")
    ids = torch.randint(0, 50, (2, 7))
    with torch.no_grad():
        program = torch.onnx.export(
            module, (ids, torch.ones_like(ids)), dynamo=True, dynamic_shapes=({0: AUTO, 1: AUTO},) * 2, verbose=False
        )
    model = frontend.load(program.model_proto)
    start = time.process_time()
    passes.run_pipeline(model)
    assert time.process_time() - start < 2.0
    assert counts(model)["fastinfer.Attention"] == 12
