# SPDX-License-Identifier: Apache-2.0
"""The suite's models quantized by onnxruntime.quantization, as users of int8 make them: u8 activations, s8 weights per channel."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

CALIBRATION = 4  # samples: with random weights and inputs their ranges hardly differ


class Samples:
    """Calibration data: the benchmark's own inputs, drawn again."""

    def __init__(self, feeds: dict[str, np.ndarray]):
        self.rest = self._draw(feeds)

    @staticmethod
    def _draw(feeds: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        rng = np.random.default_rng(11)
        yield feeds
        for _ in range(CALIBRATION - 1):
            yield {
                k: rng.standard_normal(v.shape, dtype=np.float32) if v.dtype == np.float32 else rng.permuted(v, axis=1)
                for k, v in feeds.items()
            }

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.rest, None)


def write_quantized(source: Path, feeds: dict[str, np.ndarray], path: Path, how: str) -> None:
    """`how`: qdq (static, all that onnxruntime quantizes) or dynamic (MatMulInteger)."""
    from onnxruntime import quantization as q
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared, part = path.with_suffix(".prepared"), path.with_suffix(".part")
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    if how == "dynamic":
        q.quantize_dynamic(str(prepared), str(part), per_channel=True, weight_type=q.QuantType.QInt8)
    else:
        q.quantize_static(
            str(prepared),
            str(part),
            Samples(feeds),
            quant_format=q.QuantFormat.QDQ,
            per_channel=True,
            activation_type=q.QuantType.QUInt8,
            weight_type=q.QuantType.QInt8,
        )
    prepared.unlink()
    os.replace(part, path)
