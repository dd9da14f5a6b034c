# SPDX-License-Identifier: Apache-2.0
"""The codec alone: what goes in comes out, and bytes that hypothesis makes raise ServeError or nothing."""

import json

import ml_dtypes
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fastinfer.serve.datatypes import BYTES, DTYPES, encode
from fastinfer.serve.errors import ServeError
from fastinfer.serve.http import jsontext, numbers
from fastinfer.serve.http.decode import decode_plain, decode_raw, decode_request
from fastinfer.serve.http.encode import encode_plain, encode_response
from fastinfer.serve.messages import InferResponse, Limits, RequestedOutput, Tensor
from fastinfer.serve.regions import SYSTEM_OFF

LIMITS = Limits(json=1 << 16, json_depth=8)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@st.composite
def tensors(draw, binary_only=True):
    datatype = draw(st.sampled_from([*DTYPES, BYTES] if binary_only else sorted({*DTYPES, BYTES} - {"FP16", "BF16"})))
    shape = draw(SHAPES)
    if datatype == BYTES:
        text = st.binary(max_size=9) if binary_only else st.text(max_size=9).map(str.encode)
        array = np.empty(shape, object)
        array.reshape(-1)[:] = draw(st.lists(text, min_size=array.size, max_size=array.size))
    elif datatype == "BF16":
        array = draw(hnp.arrays(np.float32, shape)).astype(ml_dtypes.bfloat16)
    else:
        array = draw(hnp.arrays(DTYPES[datatype], shape))
    return datatype, array


def same(a, b):
    assert a.dtype == b.dtype and a.shape == b.shape
    if a.dtype.kind in "fV":
        np.testing.assert_array_equal(a.astype(np.float64), b.astype(np.float64))
    else:
        assert a.tolist() == b.tolist()


@settings(deadline=None, max_examples=150)
@given(st.lists(tensors(), max_size=3))
def test_binary_there_and_back(given):
    """A response is read as a request: its outputs are the inputs."""
    outputs = [Tensor(f"t{i}", d, a) for i, (d, a) in enumerate(given)]
    body, headers = encode_response(InferResponse("m", "1", outputs, "id"), None, True, SYSTEM_OFF)
    length = int(dict(headers).get(b"inference-header-content-length", len(body)))
    root = {**orjson.loads(body[:length]), "inputs": orjson.loads(body[:length])["outputs"]}
    del root["outputs"]
    text = orjson.dumps(root)
    request, _ = decode_request("m", "", text + body[length:], len(text), LIMITS, SYSTEM_OFF)
    assert request.id == "id"
    for tensor, (datatype, array) in zip(request.inputs, given, strict=True):
        assert tensor.datatype == datatype
        same(tensor.array, array)


@settings(deadline=None, max_examples=150)
@given(st.lists(tensors(binary_only=False), max_size=3), st.booleans())
def test_json_there_and_back(given, nested):
    outputs = [Tensor(f"t{i}", d, a) for i, (d, a) in enumerate(given)]
    body, headers = encode_response(InferResponse("m", "1", outputs), None, False, SYSTEM_OFF)
    assert headers == [(b"content-type", b"application/json")]
    entries = json.loads(body, parse_constant=lambda c: pytest.fail(f"{c} is not JSON"))["outputs"]
    for entry, (_, array) in zip(entries, given, strict=True):
        if nested and array.ndim > 1:
            objects = np.empty(array.size, object)
            objects[:] = entry["data"]
            entry["data"] = objects.reshape(array.shape).tolist()
        # what tritonclient does to read it
        if array.dtype != object and array.dtype.kind != "b":
            same(np.array(entry["data"], array.dtype).reshape(array.shape), array)
    request, _ = decode_request("m", "", orjson.dumps({"inputs": entries}), None, LIMITS, SYSTEM_OFF)
    for tensor, (_, array) in zip(request.inputs, given, strict=True):
        same(tensor.array, array)


@settings(deadline=None, max_examples=100)
@given(tensors(binary_only=False))
def test_plain_there_and_back(given):
    datatype, array = given
    body = encode_plain(InferResponse("m", "1", [Tensor("x", datatype, array)]))
    if array.ndim == 0 or 0 in array.shape[:-1]:
        return  # no list at all, or one that does not say its inner extents
    metadata = {"inputs": [{"name": "x", "datatype": datatype, "shape": [-1] * array.ndim}]}
    same(decode_plain("m", body, metadata, LIMITS).inputs[0].array, array)


@settings(deadline=None, max_examples=100)
@given(tensors())
def test_raw_there_and_back(given):
    datatype, array = given
    if datatype == BYTES or array.ndim == 0 or array.size == 0:
        return
    metadata = {"inputs": [{"name": "x", "datatype": datatype, "shape": [-1, *array.shape[1:]]}]}
    same(decode_raw("m", "", bytes(encode(array)), metadata).inputs[0].array, array)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)
MEMBERS = st.sampled_from(
    [
        "name",
        "shape",
        "datatype",
        "data",
        "parameters",
        "binary_data_size",
        "classification",
        "binary_data",
        "shared_memory_region",
        "timeout",
    ]
)
ALMOST = st.fixed_dictionaries(
    {"inputs": st.lists(st.dictionaries(MEMBERS, JSON | st.sampled_from(["FP32", "BYTES", [2], {"binary_data_size": 8}]), max_size=5), max_size=3)},
    optional={"outputs": st.lists(st.dictionaries(MEMBERS, JSON, max_size=3), max_size=3) | JSON, "id": JSON, "parameters": JSON},
)  # fmt: skip


@settings(deadline=None, max_examples=400)
@given(ALMOST, st.binary(max_size=20), st.none() | st.integers(-3, 3))
def test_almost_requests_are_served_or_refused(root, tail, off):
    text = orjson.dumps(root)
    try:
        request, _ = decode_request(
            "m", "", text + tail, None if off is None else max(len(text) + off, 0), LIMITS, SYSTEM_OFF
        )
    except ServeError:
        return
    names = [t.name for t in request.inputs]
    assert len(names) == len(set(names)) and all(isinstance(t.array, np.ndarray) for t in request.inputs)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200) | st.text('[]{}"\\,:0 \nNaI', max_size=60).map(str.encode), st.integers(0, 300))
def test_any_bytes_are_served_or_refused(body, length):
    for at in (None, length):
        with pytest.raises(ServeError):
            decode_request("m", "", body, at, Limits(json_depth=3), SYSTEM_OFF)
            raise ServeError(None, "")  # an empty request would be fine  # type: ignore[arg-type]


@settings(deadline=None, max_examples=300)
@given(JSON)
def test_depth_is_counted_as_it_is(value):
    def depth(v):
        if isinstance(v, (list, dict)):
            return 1 + max(map(depth, v.values() if isinstance(v, dict) else v), default=0)
        return 0

    text, deep = orjson.dumps(value), depth(value)
    assert jsontext.parse(text, Limits(json_depth=deep)) == orjson.loads(text)
    if deep:
        with pytest.raises(ServeError, match=f"nested {deep} deep"):
            jsontext.parse(text, Limits(json_depth=deep - 1))


def test_many_containers_and_strings(monkeypatch):
    monkeypatch.setattr(jsontext, "MAX_CONTAINERS", 100)
    monkeypatch.setattr(jsontext, "MAX_STRINGS", 100)
    wide = Limits(json_depth=10)
    assert len(jsontext.parse(b"[" + b"[]," * 98 + b"[]]", wide)) == 99
    with pytest.raises(ServeError, match="100 lists or objects"):
        jsontext.parse(b"[" + b"[]," * 100 + b"[]]", wide)
    assert len(jsontext.parse(b"[" + b'"",' * 99 + b'""]', wide)) == 100
    with pytest.raises(ServeError, match="100 strings"):
        jsontext.parse(b"[" + b'"",' * 100 + b'""]', wide)
    assert jsontext.parse(b'["' + b"[" * 1000 + b'"]', wide)  # in a string they cost nothing


def test_outputs_in_order_and_each_in_its_form():
    outputs = [Tensor(n, "FP32", np.full((1, 2), i, np.float32)) for i, n in enumerate("abc")]
    wanted = [
        RequestedOutput("c", {"binary_data": True}),
        RequestedOutput("a", {}),
        RequestedOutput("b", {"binary_data": False}),
    ]
    body, headers = encode_response(InferResponse("m", "1", outputs), wanted, False, SYSTEM_OFF)
    length = int(dict(headers)[b"inference-header-content-length"])
    entries = json.loads(body[:length])["outputs"]
    assert [e["name"] for e in entries] == ["c", "a", "b"]
    assert body[length:] == outputs[2].array.tobytes()
    assert [e.get("data") for e in entries] == [None, [0.0, 0.0], [1.0, 1.0]]


@pytest.mark.parametrize(
    ("array", "k", "want"),
    [
        ([3, 1, 2], 2, ["3:0", "2:2"]), ([1, 1, 1], 3, ["1:0", "1:1", "1:2"]), ([[1, 2], [4, 3]], 1, [["2:1"], ["4:0"]]),
        ([[[1, 2], [4, 3]]], 2, [["4:2", "3:3"]]), ([], 3, []), (5, 1, ["5:0"]), ([200, 255], 1, ["255:1"]),
    ],
)  # fmt: skip
def test_classification(array, k, want):
    tensor = Tensor("y", "UINT8", np.array(array, np.uint8))
    body, _ = encode_response(
        InferResponse("m", "1", [tensor]), [RequestedOutput("y", {"classification": k})], False, SYSTEM_OFF
    )
    entry = json.loads(body)["outputs"][0]
    assert entry["datatype"] == BYTES and entry["data"] == list(np.array(want, object).reshape(-1))
    assert entry["shape"] == list(np.array(want).shape)


def test_bytes_that_are_no_text_need_binary():
    tensor = Tensor("s", BYTES, np.array([b"\xff"], object))
    with pytest.raises(ServeError, match="binary_data true"):
        encode_response(InferResponse("m", "1", [tensor]), None, False, SYSTEM_OFF)


def test_strings_do_not_multiply():
    """numpy would give every element the longest one's room: 40 MB here, and gigabytes from 32 MB of JSON."""
    data = ["x" * 10_000, *["y"] * 1000]
    array = numbers.from_lists("s", BYTES, [1001], data)
    assert array.nbytes == 8 * 1001
    with pytest.raises(ServeError, match="needs numbers"):
        numbers.from_lists("s", "FP32", [1001], data)
