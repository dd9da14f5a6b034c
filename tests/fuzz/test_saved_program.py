# SPDX-License-Identifier: Apache-2.0
"""A saved program that was tampered with gives an exception or an answer, never a crash.

Three kinds of damage: bytes flipped anywhere, the file cut short, and the JSON of the program edited (the nastiest: all
checks of the container pass). FUZZ_ROUNDS in the environment asks for more rounds."""

import json
import os
import random
import struct

import numpy as np
import pytest
from samples import SAMPLES, time_limit

import fastinfer as fi

ROUNDS = int(os.environ.get("FUZZ_ROUNDS", "250"))


def attempt(path, feeds):
    """Load and run; whether it worked (or ran too long). Anything but a FastinferError fails the test."""
    try:
        with time_limit():  # an edit can make a Loop endless
            fi.load(path, threads=1).run(feeds)
    except fi.FastinferError as e:
        assert str(e)
        return False
    return True


@pytest.fixture(params=SAMPLES)
def saved(request, tmp_path):
    model, feeds = SAMPLES[request.param]()
    path = tmp_path / "m.safetensors"
    fi.compile(model).save(path)
    assert attempt(path, feeds)
    return path.read_bytes(), feeds, tmp_path / "damaged.safetensors"


def split(data):
    (n,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + n]), data[8 + n :]


def join(header, body):
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)
    return struct.pack("<Q", len(text)) + text + body


def test_flipped_bytes_and_cuts(saved):
    data, feeds, path = saved
    rng = random.Random(1)
    header = 8 + struct.unpack("<Q", data[:8])[0]
    for _ in range(ROUNDS):
        damaged = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 8))):
            damaged[rng.randrange(header if rng.random() < 0.8 else len(data))] = rng.randrange(256)
        if rng.random() < 0.1:
            damaged = damaged[: rng.randrange(len(damaged))]
        path.write_bytes(damaged)
        attempt(path, feeds)


WEIRD = [
    -1,
    0,
    1,
    2,
    3,
    7,
    255,
    256,
    -(2**31),
    2**31,
    2**40,
    -(2**63),
    2**63 - 1,
    2**64,
    1.5,
    "",
    "x",
    None,
    True,
    [],
    {},
]


def edit(rng, node):
    """One random edit somewhere in a JSON value; returns the new value."""
    if isinstance(node, dict) and node and rng.random() < 0.9:
        key = rng.choice(list(node))
        if rng.random() < 0.08:
            del node[key]
        else:
            node[key] = edit(rng, node[key])
        return node
    if isinstance(node, list) and node and rng.random() < 0.9:
        i = rng.randrange(len(node))
        kind = rng.random()
        if kind < 0.06:
            node.pop(i)
        elif kind < 0.12:
            node.insert(i, json.loads(json.dumps(rng.choice(node))))
        else:
            node[i] = edit(rng, node[i])
        return node
    if isinstance(node, int) and not isinstance(node, bool) and rng.random() < 0.6:
        return node + rng.choice((-2, -1, 1, 2, 5))
    return rng.choice(WEIRD)


def test_edited_programs(saved):
    data, feeds, path = saved
    rng = random.Random(2)
    header, body = split(data)
    meta = header["__metadata__"]["fastinfer"]
    for _ in range(ROUNDS * 3):
        program = json.loads(meta)
        for _ in range(rng.choice((1, 1, 1, 3))):
            edit(rng, program.get("graph", program) if rng.random() < 0.8 else program)
        damaged = {**header, "__metadata__": {"fastinfer": json.dumps(program)}}
        path.write_bytes(join(damaged, body))
        attempt(path, feeds)


def test_weights_full_of_garbage_do_no_harm(saved):
    data, feeds, path = saved
    header, body = split(data)
    for seed in range(10):
        noise = np.random.default_rng(seed).integers(0, 256, len(body), np.uint8).tobytes()
        path.write_bytes(join(header, noise))
        attempt(path, feeds)
