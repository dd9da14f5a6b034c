# SPDX-License-Identifier: Apache-2.0
"""Damaged requests on both wires, and damaged settings: an answer or a refusal in words, never another exception, never a
server that is gone. FUZZ_ROUNDS asks for more rounds, FUZZ_SEED for others."""

import copy
import json
import os
import random
import socket

import numpy as np
import pytest
from damage import damaged, edited
from tritonclient.grpc import service_pb2

from fastinfer.serve.errors import ServeError
from fastinfer.serve.grpc import codec
from fastinfer.serve.http.decode import decode_plain, decode_raw, decode_request
from fastinfer.serve.messages import InferRequest, Limits
from fastinfer.serve.overrides import read as read_load
from fastinfer.serve.regions import SYSTEM_OFF
from fastinfer.serve.repository.settings import Settings, overlay, parse

ROUNDS = int(os.environ.get("FUZZ_ROUNDS", "3000"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
LIMITS = Limits(body=1 << 20, json=1 << 16, json_depth=8, tensors=16)


def sane(request):
    """What came through is what the service may rely on."""
    assert isinstance(request, InferRequest) and isinstance(request.parameters, dict)
    for tensor in request.inputs:
        assert isinstance(tensor.name, str) and isinstance(tensor.array, np.ndarray)
        assert tensor.array.nbytes <= 8 * LIMITS.body
    assert request.timeout is None or request.timeout > 0
    assert isinstance(request.sequence, (int, str)) and isinstance(request.priority, int)


def attempt(call):
    """Whether it was taken."""
    try:
        sane(call())
    except ServeError as e:
        assert str(e) and e.kind.status < 500 or e.kind.status in (501, 503)
        return False
    return True


def samples():
    """(JSON, binary part) of requests that are right."""
    x, words = np.arange(6, dtype=np.float32), b"\3\0\0\0abc\0\0\0\0"
    yield {"id": "1", "inputs": [{"name": "x", "shape": [2, 3], "datatype": "FP32", "parameters": {"binary_data_size": 24}},
                                 {"name": "w", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(words)}}],
           "outputs": [{"name": "y", "parameters": {"binary_data": True, "classification": 2}}]}, x.tobytes() + words  # fmt: skip
    yield {"parameters": {"timeout": 5, "priority": 1, "sequence_id": 7, "sequence_start": True, "binary_data_output": True},
           "inputs": [{"name": "x", "shape": [2, 2], "datatype": "INT8", "data": [[1, 2], [3, -4]]},
                      {"name": "b", "shape": [1], "datatype": "BOOL", "data": [True]}]}, b""  # fmt: skip
    yield {"inputs": [{"name": "w", "shape": [1], "datatype": "BYTES", "data": ["grüße"]},
                      {"name": "s", "shape": [4], "datatype": "FP64",
                       "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 32}}]}, b""  # fmt: skip


def test_binary_bodies():
    rng, taken = random.Random(SEED), 0
    splices = [
        b"\xff\xff\xff\xff",
        b"\0\0\0\0",
        b'"binary_data_size":',
        b"99999999999",
        b"-1",
        b"[[[[",
        b"\xef\xbb\xbf",
        b"NaN",
    ]
    for _ in range(ROUNDS):
        header, binary = rng.choice(list(samples()))
        text = json.dumps(header).encode()
        body = damaged(rng, text + binary, splices) if rng.random() < 0.9 else text + binary
        length = rng.choice((len(text), len(text), len(text), None, 0, 1, len(body), len(text) - 1, 2**40))
        taken += attempt(lambda body=body, length=length: decode_request("m", "", body, length, LIMITS, SYSTEM_OFF)[0])
    assert 0 < taken < ROUNDS


METADATA = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]}


def test_json_headers():
    rng, taken = random.Random(SEED), 0
    for _ in range(ROUNDS):
        header, binary = rng.choice(list(samples()))
        for _ in range(rng.choice((1, 1, 2, 4))):
            header = edited(rng, header)
        text = json.dumps(header).encode()
        taken += attempt(lambda t=text, b=binary: decode_request("m", "", t + b, len(t), LIMITS, SYSTEM_OFF)[0])
        attempt(lambda t=text: decode_plain("m", t, METADATA, LIMITS))
        attempt(lambda t=text: decode_raw("m", "", t, METADATA))
        plain = json.dumps(edited(rng, {"x": [[1, 2, 3], [4, 5, 6]]})).encode()
        attempt(lambda t=plain: decode_plain("m", t, METADATA, LIMITS))
    assert 0 < taken < ROUNDS


def messages():
    made = service_pb2.ModelInferRequest(model_name="m", model_version="1", id="i", raw_input_contents=[bytes(24)])
    made.inputs.add(name="x", datatype="FP32", shape=[2, 3])
    made.parameters["timeout"].int64_param = 5
    made.outputs.add(name="y").parameters["classification"].int64_param = 3
    yield made.SerializeToString()
    made = service_pb2.ModelInferRequest(model_name="m")
    typed = made.inputs.add(name="w", datatype="BYTES", shape=[2])
    typed.contents.bytes_contents.extend([b"abc", b""])
    typed = made.inputs.add(name="i", datatype="INT8", shape=[3])
    typed.contents.int_contents.extend([-128, 0, 127])
    typed.parameters["shared_memory_region"].string_param = "r"
    made.parameters["sequence_id"].string_param = "s"
    made.parameters["sequence_start"].bool_param = True
    yield made.SerializeToString()


def test_grpc_messages():
    rng, taken = random.Random(SEED), 0
    splices = [
        b"\x3a\x00",
        b"\x3a\xff\xff\xff\xff\x0f",
        b"\x0a",
        b"\xff" * 10,
        b"\x2a\x02\x1a\x00",
        b"\x12\x01" * 9,
        b"\x1a\x04\xff\xfe\x00\x80",
    ]
    for _ in range(ROUNDS):
        data = damaged(rng, rng.choice(list(messages())), splices)
        taken += attempt(lambda d=data: codec.decode(codec.Message(d, LIMITS), LIMITS, None).request)
        assert isinstance(codec.identity(data, LIMITS), str)
    assert 0 < taken < ROUNDS


SETTINGS = b"""description = "d"
labels = {a = "b"}
threads = 2
versions = {latest = 3}
[batching]
max_batch = 4
max_delay = 0.001
[limits]
timeout = 2
[sequence]
state = {h = "h_out"}
[warmup]
rows = [1, 2]
[[inputs]]
name = "x"
datatype = "FP32"
shape = [-1, 4]
"""


def test_model_toml():
    rng, taken = random.Random(SEED), 0
    splices = [
        b"[",
        b"]]",
        b"{",
        b"=",
        b'"""',
        b"'",
        b"1e999",
        b"nan",
        b"-1",
        b"0x10",
        b"9" * 5000,
        b"1979-05-27",
        b"\xff",
        b"\0",
        b"a.b.c=",
    ]
    for _ in range(ROUNDS):
        try:
            made = parse(damaged(rng, SETTINGS, splices))
            assert isinstance(made, Settings) and 1 <= made.batching.max_batch <= 65536
            taken += 1
        except ServeError as e:
            assert str(e)
        table = {
            "batching": {"max_batch": 4},
            "versions": [1],
            "inputs": [{"name": "x", "shape": [1]}],
            "labels": {"a": "b"},
        }
        table = edited(rng, table)
        try:
            if isinstance(table, dict):
                overlay(Settings(), table, "config")
        except ServeError as e:
            assert str(e)
    assert 0 < taken < ROUNDS


CONFIG = {
    "name": "m", "platform": "p", "max_batch_size": 4, "version_policy": {"latest": {"num_versions": 2}},
    "dynamic_batching": {"max_queue_delay_microseconds": 5, "default_queue_policy": {"max_queue_size": 3, "default_timeout_microseconds": "7"}},
    "instance_group": [{"count": 1, "kind": "KIND_CPU"}], "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [3]}],
    "parameters": {"owner": {"string_value": "b"}, "label.a": {"string_value": "c"}},
    "sequence_batching": {"max_sequence_idle_microseconds": 5, "state": [{"input_name": "a", "output_name": "b"}]},
}  # fmt: skip


def test_load_requests():
    """Triton's ModelConfig as a parameter, and files."""
    rng, taken = random.Random(SEED), 0
    for _ in range(ROUNDS):
        config = copy.deepcopy(CONFIG)
        for _ in range(rng.choice((1, 2, 4))):
            config = edited(rng, config)
        parameters = {"config": json.dumps(config), "file:1/model.onnx": "AAAA"}
        if rng.random() < 0.3:
            parameters = edited(rng, parameters)
        try:
            if isinstance(parameters, dict):
                given = read_load(parameters, rng.random() < 0.8)
                assert isinstance(given.apply(Settings()), Settings)
                taken += 1
        except ServeError as e:
            assert str(e)
    assert 0 < taken < ROUNDS


HEADS = [
    b"GET /v2 HTTP/1.1\r\nhost: x\r\naccept: */*\r\n\r\n",
    b"POST /v2/models/double/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ncontent-type: application/json\r\n\r\n{}",
    b"POST /predict/double HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\n[[1,2\r\n6\r\n,3,4]]\r\n0\r\nx: y\r\n\r\n",
    b"POST /v2/repository/index HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nInference-Header-Content-Length: 0\r\n\r\n"
    b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n",
]
PIECES = [b"\r\n", b"\n", b"\r", b"\0", b": ", b" ", b"\t", b"chunked", b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n", b"HTTP/2.0",
          b"%00", b"%2e%2e/", b"//", b"?", b"#", b"\xff", b"expect: 100-continue\r\n", b"upgrade: h2c\r\nconnection: upgrade\r\n", b"-1", b"ffffffffffffffff\r\n",
          b"content-encoding: gzip\r\n", b"x" * 9000, b"origin: http://e\r\n"]  # fmt: skip


def exchange(server, data, parts):
    """All that the server says, in the end by closing."""
    with socket.create_connection(("127.0.0.1", server.port), 20) as s:
        answer = b""
        try:
            for part in parts(data):
                s.sendall(part)
            s.shutdown(socket.SHUT_WR)
            while piece := s.recv(65536):
                answer += piece
        except (ConnectionResetError, BrokenPipeError):
            pass
        return answer


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_http_heads(unlocked):
    rng = random.Random(SEED)
    before = len(unlocked.records)
    for _ in range(max(200, ROUNDS // 10)):
        data = damaged(rng, rng.choice(HEADS), PIECES)
        cut = rng.randrange(len(data) + 1)
        answer = exchange(unlocked, data, lambda d, cut=cut: [p for p in (d[:cut], d[cut:]) if p])
        assert not answer or answer.startswith(b"HTTP/1.1 "), (data, answer)
        assert b"HTTP/1.1 500" not in answer and b"Traceback" not in answer, (data, answer)
    assert exchange(unlocked, HEADS[0], lambda d: [d]).startswith(b"HTTP/1.1 200")
    assert unlocked.process.poll() is None
    wrong = [r for r in unlocked.records[before:] if r.get("raw") or r.get("level") == "error"]
    assert not wrong, wrong
