# SPDX-License-Identifier: Apache-2.0
"""The gate in front of every method; health, reflection, TLS."""

import asyncio
import queue
import threading

import grpc
import pytest
from certificates import certificate
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_server import request
from small_service import SmallService
from tritonclient.grpc import service_pb2, service_pb2_grpc

from fastinfer.serve.access import Gate
from fastinfer.serve.access.keys import KeyFile, digest_of
from fastinfer.serve.grpc import GrpcServer, Tls, schema
from fastinfer.serve.grpc.access import HEALTH, SCOPES

ECHO = request("echo", ("i", "INT8", [1]), raw=[b"\1"])
KEYS = {"reader": ["read"], "user": ["infer"], "boss": ["infer", "read", "admin"]}


@pytest.fixture(scope="module")
def guarded(serving, tmp_path_factory):
    """A server with a key per name in KEYS; the user may do with `echo` only."""
    path = tmp_path_factory.mktemp("keys") / "keys.toml"
    path.write_text("".join(
        f'[[key]]\nname = "{name}"\nsha256 = "{digest_of(secret(name))}"\nscopes = {scopes}\n' + ('models = ["echo"]\n' if name == "user" else "")
        for name, scopes in KEYS.items()))  # fmt: skip
    return serving(gate=Gate(keys=[KeyFile(path)]))


def secret(name):
    return f"fi_{name}".ljust(46, "x")


def bearer(name):
    return [("authorization", f"Bearer {secret(name)}")]


def code(call, *args, **kwargs):
    try:
        answer = call(*args, timeout=20, **kwargs)
        if isinstance(answer, grpc.Call):  # a stream
            list(answer)
    except grpc.RpcError as e:
        return e.code().name
    return "OK"


def raw_call(running, method, metadata=(), message=b""):
    path = method if method.startswith("/") else f"/{schema.SERVICE}/{method}"
    if path.endswith(("StreamInfer", "ServerReflectionInfo")):
        return code(running.channel.stream_stream(path), iter([message]), metadata=metadata)
    return code(running.channel.unary_unary(path), message, metadata=metadata)


@pytest.mark.parametrize("method", [path for path, scope in SCOPES.items() if scope is not None] + ["/not/there", "/x"])
def test_nothing_goes_past_the_gate(method, guarded):
    for metadata in ([], [("authorization", "Bearer wrong")], [("authorization", "Basic eDp5")], [("x-api-key", "")],
                     bearer("boss") * 2, [*bearer("boss"), ("x-api-key", secret("boss"))]):  # fmt: skip
        assert raw_call(guarded, method, metadata) == "UNAUTHENTICATED"
    assert raw_call(guarded, method, bearer("boss")) not in ("UNAUTHENTICATED", "PERMISSION_DENIED")


@pytest.mark.parametrize("method", SCOPES)
def test_every_method_needs_its_scope(method, guarded):
    for name, scopes in KEYS.items():
        allowed = SCOPES[method] is None or SCOPES[method] in scopes
        if method.endswith("/Watch"):
            continue
        assert (raw_call(guarded, method, bearer(name)) == "PERMISSION_DENIED") is not allowed


def test_probes_need_nothing(guarded):
    assert (
        raw_call(guarded, "ServerLive")
        == raw_call(guarded, "ServerReady")
        == raw_call(guarded, f"/{HEALTH}/Check")
        == "OK"
    )


def test_keys_come_in_either_header(guarded):
    assert code(guarded.stub.ModelInfer, ECHO, metadata=[("x-api-key", secret("user"))]) == "OK"
    assert code(guarded.stub.ModelInfer, ECHO, metadata=bearer("user")) == "OK"
    assert guarded.service.seen[-1].caller == "user"


def test_models_that_a_key_does_not_cover(guarded):
    assert code(guarded.stub.ModelInfer, request("broken"), metadata=bearer("user")) == "PERMISSION_DENIED"
    answers = list(guarded.stub.ModelStreamInfer(iter([request("broken"), ECHO]), timeout=20, metadata=bearer("user")))
    assert "lacks the scope 'infer' on model 'broken'" in answers[0].error_message and answers[1].error_message == ""
    stats = guarded.stub.ModelStatistics(service_pb2.ModelStatisticsRequest(), timeout=20, metadata=bearer("reader"))
    assert len(stats.model_stats) == 4
    load = service_pb2.RepositoryModelLoadRequest(model_name="echo")
    assert code(guarded.stub.RepositoryModelLoad, load, metadata=bearer("user")) == "PERMISSION_DENIED"


def test_a_stream_asks_the_gate_for_each_message(serving, tmp_path):
    path = tmp_path / "keys.toml"
    row = (
        f'[[key]]\nname = "slow"\nsha256 = "{digest_of(secret("slow"))}"\nscopes = ["infer"]\nrate = 0.001\nburst = 4\n'
    )
    path.write_text(row)
    gate = Gate(keys=[KeyFile(path)])
    running = serving(gate=gate)
    answers = list(running.stub.ModelStreamInfer(iter([ECHO] * 5), timeout=20, metadata=bearer("slow")))
    assert [bool(a.error_message) for a in answers] == [False] * 3 + [True] * 2  # the stream itself was the first
    assert "may send 0.001 requests per second" in answers[-1].error_message
    assert raw_call(running, "ModelInfer", bearer("slow")) == "RESOURCE_EXHAUSTED"

    revoked = threading.Event()

    def requests():
        yield ECHO
        revoked.wait(20)
        yield ECHO

    path.write_text(row.replace("rate = 0.001\nburst = 4\n", ""))
    gate.reload()
    answers = running.stub.ModelStreamInfer(requests(), timeout=20, metadata=bearer("slow"))
    assert not next(answers).error_message
    path.write_text(row.replace(secret("slow"), "").replace(digest_of(secret("slow")), digest_of("another")))
    gate.reload()
    revoked.set()
    assert "the credentials are not valid" in next(answers).error_message


def test_a_refused_call_is_not_read(guarded):
    """The refusal comes though the message never ends."""
    more = queue.Queue()
    call = guarded.channel.stream_unary(f"/{schema.SERVICE}/ModelInfer")
    with pytest.raises(grpc.RpcError) as e:
        call(iter(more.get, None), timeout=20)
    more.put(None)
    assert e.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_what_all_see_is_filtered_by_model(serving, tmp_path):
    path = tmp_path / "keys.toml"
    path.write_text(f'[[key]]\nname = "r"\nsha256 = "{digest_of(secret("r"))}"\nscopes = ["read"]\nmodels = ["e*"]\n')
    running = serving(gate=Gate(keys=[KeyFile(path)]))
    index = running.stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(), timeout=20, metadata=bearer("r"))
    assert [m.name for m in index.models] == ["echo"]
    stats = running.stub.ModelStatistics(service_pb2.ModelStatisticsRequest(), timeout=20, metadata=bearer("r"))
    assert [m.name for m in stats.model_stats] == ["echo"]
    assert (
        code(running.stub.ModelConfig, service_pb2.ModelConfigRequest(name="mlp"), metadata=bearer("r"))
        == "PERMISSION_DENIED"
    )


def test_traces_reach_the_service(server):
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    server.stub.ModelInfer(ECHO, timeout=20, metadata=[("traceparent", parent)])
    assert server.service.seen[-1].trace == parent
    server.stub.ModelInfer(ECHO, timeout=20)
    assert server.service.seen[-1].trace == ""


# ---------------------------------------------------------------------------------------------------- health, reflection


def test_health(serving):
    running = serving()
    stub = health_pb2_grpc.HealthStub(running.channel)
    for service in ("", schema.SERVICE):
        assert (
            stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=20).status
            == health_pb2.HealthCheckResponse.SERVING
        )
    assert code(stub.Check, health_pb2.HealthCheckRequest(service="other")) == "NOT_FOUND"
    assert code(running.channel.unary_unary(f"/{HEALTH}/Check"), b"\xff") == "INVALID_ARGUMENT"
    watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=20)
    unknown = stub.Watch(health_pb2.HealthCheckRequest(service="other"), timeout=20)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    assert next(unknown).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

    async def becomes(draining):
        running.service.draining = draining
        running.server.changed()

    running.run(becomes(True))
    assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert not running.stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=20).ready
    running.run(becomes(False))
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    stopped = asyncio.run_coroutine_threadsafe(running.server.stop(20), running.loop)
    assert [s.status for s in watch] == [health_pb2.HealthCheckResponse.NOT_SERVING] and list(unknown) == []
    stopped.result(20)


def test_reflection_gives_the_descriptors(server):
    stub = reflection_pb2_grpc.ServerReflectionStub(server.channel)
    ask = lambda **q: next(stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(**q)]), timeout=20))  # noqa: E731
    services = {s.name for s in ask(list_services="").list_services_response.service}
    assert services == {schema.SERVICE, HEALTH, "grpc.reflection.v1alpha.ServerReflection"}
    for symbol in (*services, "inference.ModelConfig"):
        (proto,) = ask(file_containing_symbol=symbol).file_descriptor_response.file_descriptor_proto
        file = descriptor_pb2.FileDescriptorProto.FromString(proto)
        assert symbol.rpartition(".")[2] in [s.name for s in (*file.service, *file.message_type)]
    assert ask(file_containing_symbol="not.There").HasField("error_response")


# ------------------------------------------------------------------------------------------------------------------- TLS


def test_tls_and_clients_with_certificates():
    signer = certificate("ca", ca=True)
    server, client, stranger = certificate("localhost", signer), certificate("client", signer), certificate("client")
    ca, chain, key = signer.chain, server.chain, server.key
    mine, my_key, strange, strange_key = client.chain, client.key, stranger.chain, stranger.key

    async def main():
        async with SmallService() as service:
            for client_ca, credentials, expected in [
                (None, grpc.ssl_channel_credentials(ca), "OK"),
                (None, grpc.ssl_channel_credentials(strange), "UNAVAILABLE"),
                (ca, grpc.ssl_channel_credentials(ca, my_key, mine), "OK"),
                (ca, grpc.ssl_channel_credentials(ca, strange_key, strange), "UNAVAILABLE"),
                (ca, grpc.ssl_channel_credentials(ca), "UNAVAILABLE"),
            ]:
                server = GrpcServer(service)
                port = await server.start(tls=Tls(chain, key, client_ca))
                async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
                    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
                    try:
                        await stub.ModelInfer(ECHO, timeout=10)
                        outcome = "OK"
                    except grpc.aio.AioRpcError as e:
                        outcome = e.code().name
                await server.stop(0)
                assert outcome == expected

    asyncio.run(main())


def test_a_unix_socket(tmp_path):
    async def main():
        async with SmallService() as service:
            server = GrpcServer(service)
            await server.start(socket=str(tmp_path / "s"))
            async with grpc.aio.insecure_channel(f"unix:{tmp_path / 's'}") as channel:
                answer = await service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(ECHO, timeout=10)
            await server.stop(0)
            return answer.raw_output_contents

    assert asyncio.run(main()) == [b"\1"]
