# SPDX-License-Identifier: Apache-2.0
"""Convolution and pooling in float64 numpy, any number of spatial axes, as plainly as possible."""

import itertools

import numpy as np


def out_extent(n, k, s, d, p0, p1):
    return (n + p0 + p1 - ((k - 1) * d + 1)) // s + 1


def windows(x, kernel, strides, dilations, pads, fill=0.0):
    """[N, C, spatial...] → [taps, N, C, out...]."""
    n = len(kernel)
    padded = np.pad(x, [(0, 0), (0, 0)] + [(pads[i], pads[i + n]) for i in range(n)], constant_values=fill)
    out = [out_extent(x.shape[2 + i], kernel[i], strides[i], dilations[i], pads[i], pads[i + n]) for i in range(n)]
    taps = []
    for tap in itertools.product(*map(range, kernel)):
        index = [
            slice(t * d, t * d + (o - 1) * s + 1, s) for t, d, o, s in zip(tap, dilations, out, strides, strict=True)
        ]
        taps.append(padded[(slice(None), slice(None), *index)])
    return np.stack(taps)


def conv(x, w, b=None, *, strides=None, dilations=None, pads=None, group=1):
    n = x.ndim - 2
    strides, dilations, pads = strides or [1] * n, dilations or [1] * n, pads or [0] * 2 * n
    x, w = x.astype(np.float64), w.astype(np.float64)
    cols = windows(x, w.shape[2:], strides, dilations, pads)
    ci, co = w.shape[1], w.shape[0] // group
    outs = []
    for g in range(group):
        wg = w[g * co : (g + 1) * co].reshape(co, ci, -1)
        outs.append(np.einsum("tnc...,oct->no...", cols[:, :, g * ci : (g + 1) * ci], wg, optimize=True))
    y = np.concatenate(outs, 1)
    return y if b is None else y + b.astype(np.float64).reshape([1, -1] + [1] * n)


def conv_transpose(x, w, b=None, *, strides=None, dilations=None, pads=None, output_padding=None, group=1):
    n = x.ndim - 2
    strides, dilations, pads = strides or [1] * n, dilations or [1] * n, pads or [0] * 2 * n
    extra = output_padding or [0] * n
    x, w = x.astype(np.float64), w.astype(np.float64)
    kernel, co, ci = w.shape[2:], w.shape[1], x.shape[1] // group
    full = [(x.shape[2 + i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 + extra[i] for i in range(n)]
    y = np.zeros((x.shape[0], co * group, *[max(f, 0) for f in full]))
    for tap in itertools.product(*map(range, kernel)):
        for g in range(group):
            part = np.einsum(
                "nc...,co->no...", x[:, g * ci : (g + 1) * ci], w[(slice(g * ci, (g + 1) * ci), slice(None), *tap)]
            )
            index = [slice(t * d, t * d + (x.shape[2 + i] - 1) * s + 1, s)
                     for i, (t, d, s) in enumerate(zip(tap, dilations, strides, strict=True))]  # fmt: skip
            y[(slice(None), slice(g * co, (g + 1) * co), *index)] += part
    crop = [slice(pads[i], full[i] - pads[i + n]) for i in range(n)]
    y = y[(slice(None), slice(None), *crop)]
    return y if b is None else y + b.astype(np.float64).reshape([1, -1] + [1] * n)


def to_last(a):
    return np.ascontiguousarray(np.moveaxis(a, 1, -1))


def to_first(a):
    return np.ascontiguousarray(np.moveaxis(a, -1, 1))
