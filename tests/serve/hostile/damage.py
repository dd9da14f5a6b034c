# SPDX-License-Identifier: Apache-2.0
"""Bytes and JSON values with something wrong in them."""

import copy
import json

WEIRD = [
    None, True, False, 0, -1, 1, 2, 255, 2**31, 2**32, -(2**31), 2**63 - 1, 2**63, -(2**63), 2**64, 10**30, 0.5, -0.0, 1e308,
    10**400, "²", "", "x", "y", "NaN", "Infinity", "FP32", "BYTES", "BF16", "\x00", "\ud7ff", "a" * 300, [], [[]], [1, [2]], {}, {"name": "x"},
]  # fmt: skip


def damaged(rng, data, splices=()):
    """Some bytes changed, cut, doubled or replaced by what has a meaning."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(6)
        if kind == 0 and at < len(data):
            data[at] = rng.randrange(256)
        elif kind == 1 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del data[at : at + rng.choice((1, 2, 9))]
        elif kind == 3:
            data[at:at] = data[max(0, at - rng.choice((1, 4, 20))) : at] * rng.choice((1, 3))
        elif kind == 4 and splices:
            data[at : at + rng.choice((0, 1, 5))] = rng.choice(splices)
        else:
            data = data[: rng.randrange(len(data) + 1)]
    return bytes(data)


def edited(rng, value):
    """A JSON value with one part of it changed."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        if rng.random() < 0.1:
            value[rng.choice(("name", "data", "parameters", "outputs", key + "x"))] = value.pop(key)
        else:
            value[key] = edited(rng, value[key])
        return value
    if isinstance(value, list) and value and rng.random() < 0.85:
        at, kind = rng.randrange(len(value)), rng.random()
        if kind < 0.1:
            value.insert(at, json.loads(json.dumps(rng.choice(value))))
        elif kind < 0.2:
            value.pop(at)
        else:
            value[at] = edited(rng, value[at])
        return value
    if type(value) is int and rng.random() < 0.5:
        return value + rng.choice((-2, -1, 1, 4))
    return copy.deepcopy(rng.choice(WEIRD))
