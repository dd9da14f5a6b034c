# SPDX-License-Identifier: Apache-2.0
"""numpy forms of operators that onnx.reference lacks or whose values it holds differently from the engine.

OPS: (domain, operator) → function(inputs, n_outputs, **attributes) → outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Outputs = Sequence[Any]


def optional(inputs: list[Any], n_outputs: int, type: str = "") -> Outputs:
    """An optional is its element, or None."""
    return (inputs[0] if inputs else None,)


def optional_has_element(inputs: list[Any], n_outputs: int) -> Outputs:
    return (np.array(bool(inputs) and inputs[0] is not None),)


def optional_get_element(inputs: list[Any], n_outputs: int) -> Outputs:
    if inputs[0] is None:
        raise ValueError("the optional holds no element")
    return (inputs[0],)


def global_lp_pool(inputs: list[Any], n_outputs: int, p: int = 2) -> Outputs:
    """(Σ |x|^p)^(1/p) over all axes but the first two."""
    x = inputs[0]
    total = (np.abs(x.astype(np.float64)) ** p).sum(axis=tuple(range(2, x.ndim)), keepdims=True)
    return ((total ** (1.0 / p)).astype(x.dtype),)


def max_roi_pool(inputs: list[Any], n_outputs: int, pooled_shape: list[int], spatial_scale: float = 1.0) -> Outputs:
    """Largest value of each cell of a pooled_shape grid over each region [batch, x1, y1, x2, y2] (inclusive)."""
    x, rois = inputs
    rows, columns = pooled_shape
    out = np.zeros((len(rois), x.shape[1], rows, columns), x.dtype)
    for n, (batch, x1, y1, x2, y2) in enumerate(rois):
        if not 0 <= batch < x.shape[0]:
            raise ValueError(f"region {n} is of image {batch}, there are {x.shape[0]}")
        left, top, right, bottom = (int(np.floor(v * spatial_scale + 0.5)) for v in (x1, y1, x2, y2))
        for i, j in np.ndindex(rows, columns):
            r = _cell(i, rows, top, bottom, x.shape[2])
            c = _cell(j, columns, left, right, x.shape[3])
            if r.stop > r.start and c.stop > c.start:
                out[n, :, i, j] = x[int(batch), :, r, c].max(axis=(1, 2))
    return (out,)


def _cell(i: int, parts: int, first: int, last: int, extent: int) -> slice:
    size = max(last - first + 1, 1) / parts
    low, high = int(np.floor(i * size)) + first, int(np.ceil((i + 1) * size)) + first
    return slice(min(max(low, 0), extent), min(max(high, 0), extent))


def multinomial(
    inputs: list[Any], n_outputs: int, dtype: int = 6, sample_size: int = 1, seed: float | None = None
) -> Outputs:
    """Class indices drawn from unnormalised log probabilities, one row of samples per row."""
    logits = inputs[0].astype(np.float64)
    generator = np.random.default_rng(None if seed is None else int(np.float32(seed).view(np.uint32)))
    # argmax(logits + Gumbel noise) is distributed as softmax(logits).
    noise = generator.gumbel(size=(logits.shape[0], sample_size, logits.shape[1]))
    samples = (logits[:, None, :] + noise).argmax(axis=2)
    return (samples.astype(np.int64 if dtype == 7 else np.int32),)


def zip_map(
    inputs: list[Any],
    n_outputs: int,
    classlabels_strings: list[str] | None = None,
    classlabels_int64s: list[int] | None = None,
) -> Outputs:
    labels = classlabels_strings or classlabels_int64s or []
    rows = np.atleast_2d(inputs[0])
    if rows.shape[1] != len(labels):
        raise ValueError(f"{rows.shape[1]} scores given for {len(labels)} labels")
    return ([dict(zip(labels, (np.asarray(v) for v in row), strict=True)) for row in rows],)


def category_mapper(
    inputs: list[Any],
    n_outputs: int,
    cats_int64s: list[int],
    cats_strings: list[str],
    default_int64: int = -1,
    default_string: str = "_Unused",
) -> Outputs:
    x = inputs[0]
    if x.dtype == object:
        to_int = dict(zip(cats_strings, cats_int64s, strict=True))
        values = [to_int.get(v, default_int64) for v in x.flat]
        return (np.array(values, np.int64).reshape(x.shape),)
    to_string = dict(zip(cats_int64s, cats_strings, strict=True))
    return (np.array([to_string.get(int(v), default_string) for v in x.flat], object).reshape(x.shape),)


def cast_map(
    inputs: list[Any], n_outputs: int, cast_to: str = "TO_FLOAT", map_form: str = "DENSE", max_map: int = 1
) -> Outputs:
    kinds = {"TO_FLOAT": np.float32, "TO_INT64": np.int64, "TO_STRING": object}
    mapping, kind = inputs[0], kinds[cast_to]
    convert: Any = str if kind is object else kind
    if map_form == "DENSE":
        return (np.array([[convert(mapping[key]) for key in sorted(mapping)]], kind),)
    out = np.full((1, max_map), "" if kind is object else 0, kind)
    for key, value in mapping.items():
        if not 0 <= key < max_map:
            raise ValueError(f"key {key} lies outside a sparse map of {max_map}")
        out[0, key] = convert(value)
    return (out,)


OPS: dict[tuple[str, str], Callable[..., Outputs]] = {
    ("", "GlobalLpPool"): global_lp_pool,
    ("", "MaxRoiPool"): max_roi_pool,
    ("", "Multinomial"): multinomial,
    ("", "Optional"): optional,
    ("", "OptionalGetElement"): optional_get_element,
    ("", "OptionalHasElement"): optional_has_element,
    ("ai.onnx.ml", "CastMap"): cast_map,
    ("ai.onnx.ml", "CategoryMapper"): category_mapper,
    ("ai.onnx.ml", "ZipMap"): zip_map,
}
