# SPDX-License-Identifier: Apache-2.0
"""Requests and answers by template are those that parsing and writing give, and nothing else is taken for them."""

import json

import numpy as np
import pytest

from fastinfer.serve.datatypes import decode
from fastinfer.serve.http.decode import decode_request
from fastinfer.serve.http.encode import encode_response
from fastinfer.serve.http.templates import MOST, Answers, Requests
from fastinfer.serve.messages import InferResponse, Limits, RequestedOutput, Tensor
from fastinfer.serve.regions import SYSTEM_OFF

LIMITS = Limits()


def binary(arrays, datatypes=None, **more):
    inputs = [
        {"name": n, "datatype": (datatypes or {}).get(n, "FP32"), "shape": a.shape, "parameters": {"binary_data_size": a.nbytes}}
        for n, a in arrays.items()
    ]  # fmt: skip
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}, **more}).encode()
    return head + b"".join(a.tobytes() for a in arrays.values()), len(head)


def parsed(body, length):
    return decode_request("m", "", body, length, LIMITS, SYSTEM_OFF)


def learned(body, length):
    requests = Requests()
    request, flag = parsed(body, length)
    requests.learn(request, body, length, flag)
    return requests


def same(one, other):
    (a, x), (b, y) = one, other
    assert x == y and (a.model, a.version, a.id, a.parameters, a.outputs) == (
        b.model,
        b.version,
        b.id,
        b.parameters,
        b.outputs,
    )
    assert (a.priority, a.timeout, a.sequence) == (b.priority, b.timeout, b.sequence)
    for t, u in zip(a.inputs, b.inputs, strict=True):
        assert (t.name, t.datatype, t.parameters) == (u.name, u.datatype, u.parameters)
        assert (
            t.array.dtype == u.array.dtype and t.array.shape == u.array.shape and t.array.tobytes() == u.array.tobytes()
        )
        assert t.array.flags.aligned and u.array.flags.aligned


@pytest.mark.parametrize("kind", [bytes, bytearray])
@pytest.mark.parametrize("padding", range(8))
def test_a_request_like_an_earlier_one(kind, padding):
    make = lambda seed: {  # noqa: E731
        "x": np.random.default_rng(seed).standard_normal((2, 3), np.float32),
        "n" + "a" * padding: np.arange(seed, seed + 5, dtype=np.int64),
    }
    types = {"n" + "a" * padding: "INT64"}
    outputs = [{"name": "y", "parameters": {"binary_data": True}}]
    requests = learned(*binary(make(1), types, outputs=outputs))
    body, length = binary(make(2), types, outputs=outputs)
    found = requests.match("m", "", kind(body), length)
    assert found is not None
    same(found, parsed(kind(body), length))


def test_small_tensors_are_aligned_and_large_ones_not_copied():
    for count, copied in ((16, True), (1 << 20, False)):
        array = decode("x", "FP32", [count], memoryview(bytes(4 * count + 1))[1:])
        assert array.flags.aligned == copied and array.flags.owndata == copied


X = np.ones((1, 4), np.float32)


@pytest.mark.parametrize(
    "more",
    [
        {"id": "a"},
        {"parameters": {"binary_data_output": True, "mine": 1}},
        {"parameters": {"priority": 1}},
        {"parameters": {"timeout": 1000}},
        {"parameters": {"sequence_id": 7, "sequence_start": True}},
    ],
    ids=str,
)
def test_what_says_more_is_parsed_every_time(more):
    body, length = binary({"x": X}, **more)
    assert learned(body, length).match("m", "", body, length) is None


def test_what_is_not_in_the_body_is_parsed_every_time():
    inputs = [{"name": "x", "datatype": "FP32", "shape": [4], "data": [1, 2, 3, 4]}]
    head = json.dumps({"inputs": inputs}).encode()
    assert learned(head, len(head)).match("m", "", head, len(head)) is None
    inputs.append({"name": "y", "datatype": "FP32", "shape": [4], "parameters": {"binary_data_size": 16}})
    head = json.dumps({"inputs": inputs}).encode()
    assert learned(head + bytes(16), len(head)).match("m", "", head + bytes(16), len(head)) is None
    strings = [{"name": "x", "datatype": "BOOL", "shape": [4], "parameters": {"binary_data_size": 4}}]
    head = json.dumps({"inputs": strings}).encode()
    assert learned(head + b"\0\1\2\3", len(head)).match("m", "", head + b"\0\1\2\3", len(head)) is None


def test_other_models_lengths_and_texts_do_not_match():
    body, length = binary({"x": X})
    requests = learned(body, length)
    assert requests.match("m", "", body, length)
    assert requests.match("other", "", body, length) is None
    assert requests.match("m", "2", body, length) is None
    assert requests.match("m", "", body + b"x", length) is None
    assert requests.match("m", "", body[:-1], length) is None
    assert requests.match("m", "", body, length - 1) is None
    assert requests.match("m", "", body, len(body) + 9) is None


def test_the_number_of_templates_is_bounded():
    requests = Requests()
    for i in range(2 * MOST + 7):
        body, length = binary({f"x{i}": X})
        request, flag = parsed(body, length)
        requests.learn(request, body, length, flag)
        assert requests.match("m", "", body, length) and len(requests._templates) <= MOST


@pytest.mark.parametrize("wanted", [None, [{}, {"binary_data": True}], [{"binary_data": True}] * 2])
def test_answers_by_template(wanted):
    def response(seed):
        y = np.random.default_rng(seed).standard_normal((3, 4)).astype(np.float32)
        return InferResponse("m", "1", [Tensor("y", "FP32", y.T), Tensor("i", "INT64", np.arange(seed, seed + 3))])

    outputs = wanted and [RequestedOutput(n, p) for n, p in zip(("y", "i"), wanted, strict=True)]
    answers = Answers()
    key = answers.key(response(1), outputs, True)
    assert key is not None and answers.write(key, response(1)) is None
    body, headers = encode_response(response(1), outputs, True, SYSTEM_OFF)
    length = int(dict(headers)[b"inference-header-content-length"])
    answers.learn(key, body[:length])
    assert answers.write(key, response(2)) == (encode_response(response(2), outputs, True, SYSTEM_OFF)[0], length)


@pytest.mark.parametrize(
    "wanted",
    [
        [],
        [RequestedOutput("z")],
        [RequestedOutput("y", {"binary_data": False})],
        [RequestedOutput("y", {"classification": 2})],
        [RequestedOutput("y", {"shared_memory_region": "r"})],
    ],
)
def test_answers_that_are_no_plain_binary_ones_have_no_template(wanted):
    response = InferResponse("m", "1", [Tensor("y", "FP32", X)])
    assert Answers.key(response, wanted, True) is None
    assert Answers.key(response, None, False) is None
    response.id = "a"
    assert Answers.key(response, None, True) is None
    assert Answers.key(InferResponse("m", "1", [Tensor("y", "BYTES", np.array([b"a"], object))]), None, True) is None
