# SPDX-License-Identifier: Apache-2.0
"""Shapes of norms, for tests and benchmarks alike."""

from kernels.case import Case, T, W, last


def _skip(rows: int, size: int) -> Case:
    return Case("SkipLayerNorm", (T((1, rows, size)), T((1, rows, size)), W(size), W(size)), {}, "fastinfer")


CASES = {
    "bert_128": Case("LayerNormalization", (T((1, 128, 768)), W(768), W(768))),
    "minilm_32": Case("LayerNormalization", (T((1, 32, 384)), W(384), W(384))),
    "swin_3136": Case("LayerNormalization", (T((1, 3136, 96)), W(96), W(96))),
    "llama_1": Case("RMSNormalization", (T((1, 1, 2048)), W(2048))),
    "bert_skip_128": _skip(128, 768),
    "unet_group_64": last("GroupNormalization", T((1, 64, 64, 320)), W(320), W(320), num_groups=32),
    "group_64_first": Case("GroupNormalization", (T((1, 320, 64, 64)), W(320), W(320)), {"num_groups": 32}),
    "instance_56": last("InstanceNormalization", T((1, 56, 56, 64)), W(64), W(64)),
}
