# SPDX-License-Identifier: Apache-2.0
"""Templates never say anything else than what taking the message apart says."""

import numpy as np
import pytest
from grpc_server import request
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from fastinfer.serve.errors import ServeError
from fastinfer.serve.grpc import codec, templates
from fastinfer.serve.messages import InferRequest, InferResponse, Limits, RequestedOutput, Tensor

LIMITS = Limits()


def decode(raw):
    return codec.decode(codec.Message(raw, LIMITS), LIMITS, None).request


def told(r):
    """All of a request, comparable."""
    inputs = [(t.name, t.datatype, t.array.dtype, t.array.shape, t.array.tobytes(), t.parameters) for t in r.inputs]
    outputs = r.outputs and [(o.name, o.parameters) for o in r.outputs]
    return (r.model, r.version, r.id, inputs, outputs, r.parameters, r.priority, r.timeout, r.sequence)


def learned(*raws):
    requests = templates.Requests(LIMITS.name)
    for raw in raws:
        requests.learn(raw, decode(raw))
    return requests


def message(rows=2, fill=1, model="m", names=("a", "b"), wanted=(), **fields):
    tensors = [(n, "FP32", [rows, 3]) for n in names]
    m = request(
        model, *tensors, raw=[np.full(rows * 3, fill + i, np.float32).tobytes() for i in range(len(names))], **fields
    )
    for name in wanted:
        m.outputs.add(name=name)
    return m


def test_other_elements_and_ids_of_the_same_shapes_match():
    requests = learned(message().SerializeToString())
    for other in (message(fill=9), message(id="x"), message(fill=-1, id="é" * 60)):
        raw = other.SerializeToString()
        match = requests.match(raw)
        assert told(match) == told(decode(raw))
        array, (data,) = match.inputs[0].array, np.frombuffer(raw, np.uint8)[None]
        at = raw.index(array.tobytes())
        assert array.flags.aligned  # copied only where it lies across its alignment
        assert np.shares_memory(array, data) == ((data.ctypes.data + at) % 4 == 0)
        assert array.flags.writeable != np.shares_memory(array, data)
    versioned = message(model_version="3", id="i", wanted=["y", "z"])
    requests.learn(versioned.SerializeToString(), decode(versioned.SerializeToString()))
    other = message(model_version="3", fill=7, wanted=["y", "z"]).SerializeToString()
    assert told(requests.match(other)) == told(decode(other))


@pytest.mark.parametrize(
    "other", [message(rows=3), message(model="n"), message(names=("a", "c")), message(names=("a",)), message(wanted=["y"]),
              message(model_version="1"), message(id="a\nb"), message(id="i" * 200)]
)  # fmt: skip
def test_anything_else_does_not(other):
    assert learned(message().SerializeToString()).match(other.SerializeToString()) is None


def with_parameter():
    m = message()
    m.parameters["priority"].uint64_param = 1
    return m


def with_input_parameter():
    m = message()
    m.inputs[1].parameters["k"].bool_param = True
    return m


@pytest.mark.parametrize(
    "raw",
    [with_parameter().SerializeToString(), with_input_parameter().SerializeToString(),
     request("m", ("a", "BOOL", [2]), raw=[b"\2\0"]).SerializeToString(),
     request("m", ("a", "BYTES", [1]), raw=[b"\1\0\0\0x"]).SerializeToString(),
     request("m", ("a", "FP32", [0]), raw=[b""]).SerializeToString(),
     request("m", ("a", "INT8", [2], {"int_contents": [1, 2]})).SerializeToString(),
     request("m" * 200, ("a", "INT8", [1]), raw=[b"1"]).SerializeToString(),
     request("m", ("a" * 250, "INT8", [1]), *[(f"{i}" * 80, "INT8", [1]) for i in range(40)], raw=[b"1"] * 41).SerializeToString(),
     message(id="a").SerializeToString() + service_pb2.ModelInferRequest(id="b").SerializeToString(),
     message().SerializeToString() + service_pb2.ModelInferRequest(model_name="other").SerializeToString(),
     service_pb2.ModelInferRequest(raw_input_contents=[b"1"]).SerializeToString() + request("m", ("a", "INT8", [1])).SerializeToString()],
)  # fmt: skip
def test_what_makes_no_template(raw):
    assert learned(raw).match(raw) is None


def test_there_are_not_more_templates_than_a_few():
    requests = templates.Requests(LIMITS.name)
    for rows in range(1, 3 * templates.MOST):
        raw = message(rows).SerializeToString()
        requests.learn(raw, decode(raw))
        assert requests.match(raw) is not None
    assert len(requests._templates) <= templates.MOST


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_changed_bytes_mean_what_they_mean(data):
    known = [message(id="id").SerializeToString(), message(model_version="1", wanted=["y"]).SerializeToString(),
             message(names=("a",)).SerializeToString()]  # fmt: skip
    requests = learned(*known)
    raw = bytearray(data.draw(st.sampled_from(known)))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
        raw = raw or bytearray(b"\x0a\0")
    raw = bytes(raw)
    match = requests.match(raw)
    try:
        expected = told(decode(raw))
    except ServeError:
        assert match is None
    else:
        assert match is None or told(match) == expected


# --------------------------------------------------------------------------------------------------------------- answers


def answer(arrays, datatypes, wanted=None, **fields):
    """What codec.encode gives: the first time, and by the template."""
    outputs = [Tensor(f"o{i}", d, a) for i, (d, a) in enumerate(zip(datatypes, arrays))]
    call = codec.Call(InferRequest("m", [], outputs=wanted))
    encoded = [codec.encode(call, InferResponse("m", "1", outputs, **fields)) for _ in range(2)]
    first, second = map(service_pb2.ModelInferResponse.FromString, encoded)
    assert first == second
    streamed = [codec.encode(call, InferResponse("m", "1", outputs, **fields), streamed=True) for _ in range(2)]
    third, fourth = map(service_pb2.ModelStreamInferResponse.FromString, streamed)
    assert third == fourth and third.infer_response.parameters.pop("triton_final_response").bool_param
    assert third.infer_response == first
    return second


@pytest.mark.parametrize("datatype", sorted(templates.PLAIN))
@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (200, 7)], ids=str)
def test_answers_by_template_are_the_answers(datatype, shape):
    dtype = templates.DTYPES[datatype]
    array = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    for request_id in ("", "i", "é" * 300):
        got = answer([array, array.T], [datatype] * 2, id=request_id)
        assert got.id == request_id and [list(o.shape) for o in got.outputs] == [list(shape), list(shape[::-1])]
        assert list(got.raw_output_contents) == [array.tobytes(), array.T.tobytes()]


def test_answers_as_they_were_wanted():
    a, b = np.arange(3), np.arange(4.0)
    asked = [RequestedOutput("o1"), RequestedOutput("o0")]
    assert [o.name for o in answer([a, b], ["INT64", "FP64"], asked).outputs] == ["o1", "o0"]
    assert [o.name for o in answer([a, b], ["INT64", "FP64"], asked[::-1]).outputs] == ["o0", "o1"]
    assert [o.name for o in answer([a, b], ["INT64", "FP64"], asked[:1]).outputs] == ["o1"]
    top = answer([a], ["INT64"], [RequestedOutput("o0", {"classification": 1})])
    assert top.outputs[0].datatype == "BYTES" and top.raw_output_contents == [b"\3\0\0\0" + b"2:2"]
    assert answer([a], ["INT64"], parameters={"k": 1}).parameters["k"].int64_param == 1


def test_there_are_not_more_answers_than_a_few():
    for n in range(1, 2 * templates.MOST):
        answer([np.zeros(n, np.int8)], ["INT8"])
    assert len(codec.ANSWERS._heads) <= templates.MOST
