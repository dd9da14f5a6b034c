# SPDX-License-Identifier: Apache-2.0
"""Requests made by hand: typed contents, raw contents, and what is wrong with them (cases 17 to 19, 25)."""

import grpc
import numpy as np
import pytest
from grpc_server import request
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from fastinfer.serve.classification import classify
from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.grpc import codec, wire
from fastinfer.serve.messages import InferRequest, InferResponse, Limits, Tensor
from fastinfer.serve.reserved import take_reserved

LIMITS = Limits()
VALUES = {
    "BOOL": ("bool_contents", [True, False]), "INT8": ("int_contents", [-128, 127]), "INT16": ("int_contents", [-(1 << 15), 5]),
    "INT32": ("int_contents", [-(1 << 31), 1]), "INT64": ("int64_contents", [-(1 << 63), 1]), "UINT8": ("uint_contents", [255, 0]),
    "UINT16": ("uint_contents", [65535, 0]), "UINT32": ("uint_contents", [(1 << 32) - 1, 0]),
    "UINT64": ("uint64_contents", [(1 << 64) - 1, 0]), "FP32": ("fp32_contents", [0.5, -np.inf]), "FP64": ("fp64_contents", [0.1, 1e300]),
    "BYTES": ("bytes_contents", [b"", b"\xff\0"]),
}  # fmt: skip


def decode(message, limits=LIMITS):
    raw = message if isinstance(message, bytes) else message.SerializeToString()
    return codec.decode(codec.Message(raw, limits), limits, None).request


@pytest.mark.parametrize("datatype", VALUES)
def test_typed_contents(datatype, server):
    field, values = VALUES[datatype]
    answer = server.stub.ModelInfer(request("echo", ("x", datatype, [1, 2], {field: values})), timeout=20)
    array = decode(request("echo", ("x", datatype, [1, 2], {field: values}))).inputs[0].array
    assert array.shape == (1, 2) and array.reshape(-1).tolist() == values
    assert answer.outputs[0].datatype == datatype and not answer.outputs[0].HasField("contents")
    if datatype == "BYTES":
        assert answer.raw_output_contents == [b"\0\0\0\0\2\0\0\0\xff\0"]
    else:
        assert answer.raw_output_contents == [array.tobytes()]


def test_no_elements_need_no_contents():
    assert decode(request("echo", ("x", "FP32", [0, 4]))).inputs[0].array.shape == (0, 4)


GOOD = ("x", "FP32", [2], {"fp32_contents": [1, 2]})
BAD = {
    "raw and typed": (request("m", GOOD, raw=[bytes(8)]), "has contents; with raw_input_contents no input may have any"),
    "one of them typed": (request("m", ("a", "FP32", [1]), GOOD, raw=[bytes(4)]), "has contents"),
    "too few raw": (request("m", ("a", "FP32", [1]), ("b", "FP32", [1]), raw=[bytes(4)]), "input 'b' has none left"),
    "too many raw": (request("m", ("a", "FP32", [1]), raw=[bytes(4)] * 3), "3 raw_input_contents were given; 1 inputs"),
    "raw without inputs": (request("m", raw=[b""]), "1 raw_input_contents were given; 0 inputs"),
    "raw too short": (request("m", ("a", "FP32", [2]), raw=[bytes(7)]), "7 bytes were given; FP32 [2] needs 8"),
    "no contents": (request("m", ("a", "FP32", [2])), "fp32_contents has 0 elements"),
    "too many contents": (request("m", ("a", "INT8", [1], {"int_contents": [1, 2]})), "has 2 elements; INT8 [1] needs 1"),
    "contents of another type": (request("m", ("a", "FP32", [1], {"int_contents": [1]})), "given in fp32_contents, not in int_contents"),
    "two kinds of contents": (request("m", ("a", "INT8", [1], {"int_contents": [1], "fp32_contents": [1]})), "not in fp32_contents"),
    "out of range": (request("m", ("a", "INT8", [2], {"int_contents": [1, 128]})), "goes from 1 to 128; INT8 does not"),
    "below range": (request("m", ("a", "INT16", [1], {"int_contents": [-40000]})), "INT16 does not"),
    "half typed": (request("m", ("a", "FP16", [1], {"fp32_contents": [1]})), "use raw_input_contents"),
    "unknown datatype": (request("m", ("a", "FP33", [1]), raw=[bytes(4)]), "no datatype is called 'FP33'"),
    "unknown datatype typed": (request("m", ("a", "", [1])), "no datatype is called ''"),
    "negative extent": (request("m", ("a", "FP32", [-1]), raw=[b""]), "extent -1"),
    "overflow": (request("m", ("a", "INT8", [1 << 62, 4]), raw=[b""]), "extent"),
    "overflow of the product": (request("m", ("a", "INT8", [1 << 32, 1 << 32]), raw=[b""]), "too large"),
    "many extents": (request("m", ("a", "FP32", [1] * 65), raw=[bytes(4)]), "65 extents"),
    "twice": (request("m", ("a", "INT8", [1]), ("a", "INT8", [1]), raw=[b"1", b"2"]), "input 'a' is given twice"),
    "strings end early": (request("m", ("a", "BYTES", [1]), raw=[b"\xff\xff\xff\xff"]), "says 4294967295 bytes"),
    "strings too few": (request("m", ("a", "BYTES", [1 << 40]), raw=[b""]), "cannot hold"),
    "long name": (request("n" * 257, GOOD), "model_name has 257 characters"),
    "line feed in the id": (request("m", GOOD, id="a\nb"), "id holds control characters"),
    "escape in a name": (request("m", ("\x1b[31m", "INT8", [1]), raw=[b"1"]), "control characters"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_with_a_request(case):
    message, text = BAD[case]
    with pytest.raises(ServeError) as e:
        decode(message)
    assert e.value.kind is Kind.INVALID_ARGUMENT and text in str(e.value)


def test_outputs_and_parameters_that_are_wrong():
    message = request("m", GOOD)
    message.outputs.add(name="y")
    message.outputs.add(name="y")
    with pytest.raises(ServeError, match="output 'y' is asked for twice"):
        decode(message)
    for name in ("priority", "timeout", "sequence_id"):
        message = request("m", GOOD)
        message.parameters[name].int64_param = -1
        with pytest.raises(ServeError, match=f"parameter '{name}': needed is an integer"):
            decode(message)
    message = request("m", GOOD)
    message.parameters["sequence_end"].string_param = "yes"
    with pytest.raises(ServeError, match="'sequence_end': needed is true or false"):
        decode(message)
    message = request("m", GOOD)
    message.parameters["empty"].SetInParent()
    with pytest.raises(ServeError, match="parameter 'empty' has no value"):
        decode(message)
    message = request("m", GOOD)
    for i in range(257):
        message.parameters[str(i)].int64_param = i
    with pytest.raises(ServeError, match="257 parameters; at most 256"):
        decode(message)
    message = request("m", GOOD)
    message.inputs[0].parameters["shared_memory_region"].string_param = "r"
    with pytest.raises(ServeError, match="contents and shared memory"):
        decode(message)
    message.inputs[0].ClearField("contents")
    with pytest.raises(ServeError, match="shared memory switched off") as e:
        decode(message)
    assert e.value.kind is Kind.UNSUPPORTED


def test_all_kinds_of_parameters():
    message = request("m", GOOD)
    for field, value in (
        ("bool_param", True),
        ("int64_param", -5),
        ("uint64_param", (1 << 64) - 1),
        ("string_param", "s"),
        ("double_param", 0.5),
    ):
        setattr(message.parameters[field], field, value)
    given = decode(message).parameters
    assert given == {
        "bool_param": True,
        "int64_param": -5,
        "uint64_param": (1 << 64) - 1,
        "string_param": "s",
        "double_param": 0.5,
    }
    call = codec.Call(InferRequest("m", []))
    answer = service_pb2.ModelInferResponse.FromString(codec.encode(call, InferResponse("m", "1", [], "i", given)))
    assert {k: getattr(v, v.WhichOneof("parameter_choice")) for k, v in answer.parameters.items()} == given


def test_more_fields_than_anyone_needs():
    limits = Limits(tensors=8)
    many = request("m", *[(str(i), "INT8", [0]) for i in range(9)])
    with pytest.raises(ServeError, match="9 inputs were given; at most 8"):
        decode(many, limits)
    for flood in (b"\x3a\0" * 1000, b"\x2a\0" * 1000, b"\x32\0" * 100_000):
        with pytest.raises(ServeError, match="more than 32 fields"):
            codec.Message(flood, limits)
    with pytest.raises(ServeError) as e:
        codec.Message(
            request("m", ("x", "INT8", [100], {"int_contents": [1] * 100})).SerializeToString(), Limits(json=64)
        )
    assert e.value.kind is Kind.TOO_LARGE


# -------------------------------------------------------------------------------------------------------------- the bytes


def test_raw_tensors_are_not_copied():
    """But for those that lie across their alignment: names of four lengths have each of them once."""
    shared = []
    for name in ("m", "mm", "mmm", "mmmm"):
        given = request(name, ("a", "FP32", [1000]), ("b", "INT8", [3]), raw=[bytes(4000), b"abc"])
        raw = given.SerializeToString()
        a, b = decode(raw).inputs
        shared.append(np.shares_memory(a.array, np.frombuffer(raw, np.uint8)))
        assert np.shares_memory(b.array, np.frombuffer(raw, np.uint8)) and b.array.tobytes() == b"abc"
        assert a.array.flags.aligned
    assert shared.count(True) == 1


@st.composite
def messages(draw):
    """Requests as protobuf writers may order and repeat their fields."""
    parts = [service_pb2.ModelInferRequest(model_name=draw(st.text(max_size=5)), id=draw(st.text(max_size=200)))]
    for size in draw(st.lists(st.sampled_from([0, 1, 127, 128, 300, 16383, 16384]), max_size=4)):
        part = service_pb2.ModelInferRequest(raw_input_contents=[bytes(size)])
        if draw(st.booleans()):
            part.inputs.add(name=f"i{len(parts)}", datatype="INT8", shape=[size])
        parts.append(part)
    unknown = draw(
        st.lists(
            st.sampled_from([b"\x40\x96\x01", b"\x41" + bytes(8), b"\x45" + bytes(4), b"\x82\x01\3abc"]), max_size=2
        )
    )
    return b"".join(draw(st.permutations([*(p.SerializeToString() for p in parts), *unknown])))


@settings(max_examples=200, deadline=None)
@given(messages())
def test_split_says_what_protobuf_says(raw):
    whole = service_pb2.ModelInferRequest.FromString(raw)
    head, tensors = wire.split(raw, 1000)
    assert [bytes(t) for t in tensors] == list(whole.raw_input_contents)
    whole.ClearField("raw_input_contents")
    assert service_pb2.ModelInferRequest.FromString(head) == whole


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 400), st.binary(max_size=4))
def test_garbage_is_refused_and_nothing_else(garbage, at, patch):
    raw = request(
        "m", ("a", "FP32", [2, 2]), ("s", "BYTES", [1]), raw=[bytes(16), b"\1\0\0\0x"], id="i"
    ).SerializeToString()
    for data in (garbage, raw[: at % len(raw)] + patch + raw[at % len(raw) + len(patch) :], raw[: at % len(raw)]):
        try:
            decode(data)
        except ServeError as e:
            assert e.kind is Kind.INVALID_ARGUMENT


@pytest.mark.parametrize("raw", [b"\x3a", b"\x3a\x05abc", b"\x3a\xff", b"\x3a" + b"\xff" * 9 + b"\1", b"\x3a" + b"\xff" * 20, b"\x0b\x0c",
                                 b"\x07", b"\x0a\x02\xff\xfe", b"\x00\x00"])  # fmt: skip
def test_messages_that_are_none(raw, server):
    call = server.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    with pytest.raises(grpc.RpcError) as e:
        call(raw, timeout=20)
    assert e.value.code() is grpc.StatusCode.INVALID_ARGUMENT and "cannot be decoded" in e.value.details()


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("size", [0, 1, 127, 128, 16384, 300_000])
def test_answers_are_what_protobuf_would_write(size, streamed):
    arrays = [np.arange(size, dtype=np.uint8), np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.array([True, False])]
    outputs = [Tensor(str(i), t, a) for i, (t, a) in enumerate(zip(["UINT8", "FP64", "BOOL"], arrays))]
    raw = codec.encode(codec.Call(InferRequest("m", [])), InferResponse("m", "3", outputs, "id"), streamed)
    if streamed:
        answer = service_pb2.ModelStreamInferResponse.FromString(raw).infer_response
    else:
        answer = service_pb2.ModelInferResponse.FromString(raw)
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "3", "id")
    assert list(answer.raw_output_contents) == [a.tobytes() for a in arrays]
    assert [list(o.shape) for o in answer.outputs] == [[size], [2, 3], [2]]


def test_an_answer_too_large_for_a_message_is_an_error():
    class Large(bytes):
        def __len__(self):
            return 1 << 31

    with pytest.raises(ServeError, match="a message holds at most 2147483647") as e:
        wire.join(b"", [Large()], False)
    assert e.value.kind is Kind.TOO_LARGE


# ------------------------------------------------------------------------------------------------- what both wires share


def test_classification_of_any_shape_and_type():
    def best(array, k, datatype="FP32"):
        return classify(Tensor("x", datatype, np.asarray(array)), k).array.tolist()

    assert best(np.ones((2, 2, 2), np.float32), 9) == [[b"1.000000:%d" % i for i in range(4)]] * 2
    assert best([5, 9, 7], 1, "INT64") == [b"9:1"]
    assert best([np.nan, -np.inf, 1.0], 3) == [b"1.000000:2", b"-inf:1", b"nan:0"]
    assert best([True, False], 2, "BOOL") == [b"1:0", b"0:1"]
    assert best(np.array([(1 << 64) - 1, 3], np.uint64), 1, "UINT64") == [b"18446744073709551615:0"]
    assert best(np.zeros((3, 0)), 2) == [[], [], []] and best(np.zeros((0, 3)), 2) == []
    assert best(np.float32(2.5), 1) == [b"2.500000:0"]
    for k in (0, -1, 1.0, True, "3"):
        with pytest.raises(ServeError, match="an integer of at least 1"):
            best([1.0], k)
    with pytest.raises(ServeError, match="cannot be classified"):
        classify(Tensor("x", "BYTES", np.array([b"a"], object)), 1)


def test_priorities_grow_upwards_and_zero_is_not_said():
    def priority(level):
        r = InferRequest("m", [], parameters={"priority": level, "mine": 1})
        take_reserved(r)
        assert r.parameters == {"mine": 1}
        return r.priority

    assert priority(1) > priority(2) > priority(0) == 0 > priority(9)
