# SPDX-License-Identifier: Apache-2.0
"""Case 25 and its neighbours: what clients do to a gRPC server, over real connections, some made of hand-written frames."""

import os
import socket
import struct

import grpc
import numpy as np
import pytest
from grpc_server import request
from tritonclient.grpc import service_pb2

from fastinfer.errors import InputError
from fastinfer.serve.grpc import Connections, GrpcServer
from fastinfer.serve.messages import Limits

INFER = "/inference.GRPCInferenceService/ModelInfer"
ECHO = request("echo", ("i", "INT8", [1]), raw=[b"\1"])


@pytest.fixture(scope="module")
def small(serving):
    """A server that takes messages of 1 MiB and metadata of 8 KiB."""
    return serving(limits=Limits(body=1 << 20), connections=Connections(metadata=8 << 10))


def lives(running):
    return running.stub.ModelInfer(ECHO, timeout=20).raw_output_contents == [b"\1"]


def resident():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def refusal(call, *args, **kwargs):
    with pytest.raises(grpc.RpcError) as e:
        call(*args, timeout=20, **kwargs)
    return e.value


def test_a_message_over_the_limit(small):
    error = refusal(small.stub.ModelInfer, request("echo", ("x", "INT8", [1 << 20]), raw=[bytes(1 << 20)]))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    fits = (1 << 20) - 100
    assert (
        len(small.stub.ModelInfer(request("echo", ("x", "INT8", [fits]), raw=[bytes(fits)])).raw_output_contents[0])
        == fits
    )


@pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_a_bomb_is_not_unpacked(algorithm, small):
    bomb = bytes(256 << 20)  # 256 KiB when compressed
    call = small.channel.unary_unary(INFER)
    before = resident()
    error = refusal(call, bomb, compression=algorithm)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and resident() - before < 64 << 20
    assert lives(small)


def test_metadata_over_the_limit(small):
    stub = small.stub.ModelInfer
    error = refusal(stub, ECHO, metadata=[("x-long", "v" * (9 << 10))])
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert stub(ECHO, timeout=20, metadata=[("x-long", "v" * (6 << 10))]).raw_output_contents == [b"\1"]


def test_names_that_are_not_text(small):
    for field in (b"\x0a\x02\xff\xfe", b"\x0a\1m\x1a\x02\xc3\x28"):  # model_name, id
        error = refusal(small.channel.unary_unary(INFER), field)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_methods_that_there_are_not(small):
    for method in ("/inference.GRPCInferenceService/Nothing", "/other.Service/ModelInfer", "/x"):
        assert refusal(small.channel.unary_unary(method), b"").code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    "name", ["ModelReady", "ModelMetadata", "RepositoryIndex", "RepositoryModelLoad", "ModelStatistics", "TraceSetting"]
)
def test_other_calls_refuse_what_they_cannot_decode(name, small):
    error = refusal(small.channel.unary_unary(f"/inference.GRPCInferenceService/{name}"), b"\xff" * 7)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT and "cannot be decoded" in error.details()


def test_hostile_model_names(small):
    for name in ("../../etc/passwd", "a\0b", "\x1b[31m\r\nX", "n" * 100_000):
        for call, message in (
            (small.stub.ModelReady, service_pb2.ModelReadyRequest),
            (small.stub.ModelConfig, service_pb2.ModelConfigRequest),
        ):
            try:
                assert not call(message(name=name), timeout=20).ready
            except grpc.RpcError as e:
                assert e.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
    assert lives(small)


def test_an_errors_text_fits_into_a_clients_metadata(small):
    error = refusal(
        small.stub.ModelInfer,
        request("echo", *[("é" * 200 + str(i), "INT8", [0]) for i in range(2)], raw=[b"", b"", b""]),
    )
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    wanted = request("echo", *[(f"{'é' * 250}{i}", "INT8", [0]) for i in range(100)], raw=[b""] * 100)
    wanted.outputs.add(name="not there")
    error = refusal(small.stub.ModelInfer, wanted)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT and len(error.details()) < 4096


def test_more_calls_at_once_than_allowed(serving):
    running = serving(connections=Connections(calls=2))
    stuck = [running.stub.ModelInfer.future(request("stuck"), timeout=20) for _ in range(2)]
    running.run(running.service.stuck.wait())
    codes = set()
    for _ in range(20):
        try:
            running.stub.ModelInfer(ECHO, timeout=20)
        except grpc.RpcError as e:
            codes.add(e.code())
    assert codes == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    for call in stuck:
        call.cancel()
    running.run(running.service.cancelled.wait())


def test_messages_that_are_too_large_together(serving):
    running = serving(limits=Limits(body=1 << 20), connections=Connections(held=1 << 20))
    large = request("stuck", ("x", "INT8", [1 << 19]), raw=[bytes(1 << 19)])
    stuck = running.stub.ModelInfer.future(large, timeout=20)
    running.run(running.service.stuck.wait())
    error = refusal(running.stub.ModelInfer, request("echo", ("x", "INT8", [1 << 19]), raw=[bytes(1 << 19)]))
    assert error.code() is grpc.StatusCode.UNAVAILABLE and "too large together" in error.details()
    assert ("grpc-retry-pushback-ms", "1000") in error.trailing_metadata()
    (answer,) = running.stub.ModelStreamInfer(iter([large]), timeout=20)
    assert "too large together" in answer.error_message
    assert lives(running)
    stuck.cancel()
    running.run(running.service.cancelled.wait())
    large.model_name = "echo"
    assert len(running.stub.ModelInfer(large, timeout=20).raw_output_contents[0]) == 1 << 19


def test_a_port_that_is_taken(small):
    async def second():
        await GrpcServer(small.service).start(port=int(small.address.rpartition(":")[2]))

    with pytest.raises(InputError, match="gRPC cannot listen on 127.0.0.1:"):
        small.run(second())
    assert lives(small)


# ------------------------------------------------------------------------------------------------------ frames by hand


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value):
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


HEADERS = b"".join(literal(*h) for h in [(b":method", b"POST"), (b":scheme", b"http"), (b":path", INFER.encode()), (b":authority", b"x"),
                                         (b"te", b"trailers"), (b"content-type", b"application/grpc")])  # fmt: skip
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")


def connect(running):
    host, port = running.address.split(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    connection.sendall(PREFACE)
    return connection


def read_frames(connection):
    """(kind, payload) until the server closes."""
    buffer = b""
    while True:
        while len(buffer) < 9 or len(buffer) < 9 + int.from_bytes(buffer[:3], "big"):
            try:
                data = connection.recv(65536)
            except ConnectionError:
                return
            if not data:
                return
            buffer += data
        size = int.from_bytes(buffer[:3], "big")
        yield buffer[3], buffer[9 : 9 + size]
        buffer = buffer[9 + size :]


def test_a_flood_of_pings_is_sent_away(small):
    with connect(small) as connection:
        try:
            for _ in range(200):
                connection.sendall(frame(6, 0, 0, bytes(8)))
        except ConnectionError:
            pass  # it has had enough already
        goaways = [payload for kind, payload in read_frames(connection) if kind == 7]
    assert (
        goaways and struct.unpack(">I", goaways[-1][4:8])[0] == 11 and b"too_many_pings" in goaways[-1]
    )  # ENHANCE_YOUR_CALM
    assert lives(small)


def test_a_flood_of_resets_does_not_hurt(small):
    before = len(small.service.seen)
    with connect(small) as connection:
        try:
            for i in range(3000):
                stream = 2 * i + 1
                connection.sendall(frame(1, 4, stream, HEADERS) + frame(3, 0, stream, struct.pack(">I", 8)))
        except ConnectionError:
            pass
        assert lives(small)
    assert lives(small) and len(small.service.seen) == before + 2


def test_a_deadline_that_had_passed_when_the_request_came(small):
    before = len(small.service.seen)
    message = ECHO.SerializeToString()
    with connect(small) as connection:
        for i in range(50):
            headers = HEADERS + literal(b"grpc-timeout", b"1n")
            body = b"\0" + struct.pack(">I", len(message)) + message
            connection.sendall(frame(1, 4, 2 * i + 1, headers) + frame(0, 1, 2 * i + 1, body))
        assert lives(small)
    assert lives(small)
    # gRPC rounds up to a millisecond: some may have come within it.
    assert all(r.timeout < 0.002 or r.timeout > 10 for r in small.service.seen[before:])
    assert sum(r.timeout > 10 for r in small.service.seen[before:]) == 2


def test_frames_and_prefaces_that_are_none(small):
    for data in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\2\0\1\0\1\xfc" + bytes(300), os.urandom(4096), PREFACE + os.urandom(4096),
                 PREFACE + frame(1, 4, 1, b"\xff" * 100), PREFACE + struct.pack(">I", 0xFFFFFF)[1:] + b"\0\0\0\0\0\1"):  # fmt: skip
        host, port = small.address.split(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            for _ in read_frames(connection):
                pass
    assert lives(small)


def test_a_message_whose_length_lies(small):
    with connect(small) as connection:
        lying = b"\0" + struct.pack(">I", 0xFFFFFFFF) + b"abc"
        connection.sendall(frame(1, 4, 1, HEADERS) + frame(0, 1, 1, lying))
        connection.sendall(frame(1, 4, 3, HEADERS) + frame(0, 1, 3, b"\0\0"))
        connection.sendall(frame(1, 4, 5, HEADERS) + frame(0, 1, 5, b""))
        assert lives(small)


def test_ten_thousand_strings_do_not_hold_the_loop(small):
    many = np.arange(30_000).astype("S")
    raw = b"".join(struct.pack("<I", len(s)) + s for s in many.tolist())
    busy = small.stub.ModelInfer.future(request("echo", ("s", "BYTES", [30_000]), raw=[raw]), timeout=20)
    assert lives(small) and busy.result(20).raw_output_contents == [raw]
