# SPDX-License-Identifier: Apache-2.0
"""No way around the gate of a whole server: every route and call, however its name is written."""

import resource
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from clients import KINDS, Client
from doors import ask, bearer, secret
from tritonclient.utils import InferenceServerException

X = np.ones((1, 4), np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_keys_from_a_clients_plugin(locked, kind):
    """How tritonclient adds credentials to every request."""

    class Key:
        def __call__(self, request):
            request.headers.update(bearer("runner"))

    with Client(kind, locked.grpc if kind.startswith("grpc") else locked.http) as client:
        client.register_plugin(Key())
        assert client.plugin() is not None
        np.testing.assert_array_equal(client.ask("double", "x", X).as_numpy("y"), 3 * X)
        with pytest.raises(InferenceServerException, match="'runner' lacks the scope 'read'"):
            client.get_model_metadata("double")
        with pytest.raises(InferenceServerException, match="'runner' lacks the scope 'infer' on model 'words'"):
            client.ask("words", "x", X)
        client.unregister_plugin()
        with pytest.raises(InferenceServerException, match="credentials are needed"):
            client.ask("double", "x", X)


# ------------------------------------------------------------------------------------------------------ paths and methods


# Ways to write a path that a gate, a proxy and a router may read differently.
def spellings(path):
    first, *rest = path.strip("/").split("/")
    yield path
    yield from (
        f"/{path}",
        f"{path}/",
        f"{path}//",
        f"/.{path}",
        f"/ui/..{path}",
        f"/ui/../..{path}",
        f"/ui/%2e%2e{path}",
    )
    yield from (f"/%2f{path.lstrip('/')}", f"{path}?x=/ui/", f"{path}#/ui/", f"{path};/ui/", f"{path}%00", f"{path}%20")
    yield from (f"/{first.upper()}/{'/'.join(rest)}", f"/%{ord(first[0]):02x}{path[2:]}", f"/v2/health/live/..{path}")
    yield from (f"http://x{path}", f"http://x/ui/..{path}", f"//x{path}", f"/ui{path}", f"/ui/{path}", f"\\{path[1:]}")


ROUTES = [
    ("GET", "/v2"), ("GET", "/v2/models/double"), ("GET", "/v2/models/double/config"), ("GET", "/v2/models/stats"),
    ("POST", "/v2/models/double/infer"), ("POST", "/predict/double"), ("POST", "/v2/repository/index"),
    ("POST", "/v2/repository/models/double/unload"), ("GET", "/v2/systemsharedmemory/status"), ("GET", "/v2/logging"),
    ("POST", "/v2/systemsharedmemory/unregister"), ("GET", "/metrics"), ("GET", "/fastinfer/v1/overview"),
    ("POST", "/fastinfer/v1/models/double/promote"), ("GET", "/openapi.json"), ("GET", "/v2/models/double@stable"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=lambda v: v.replace("/", "."))
def test_no_spelling_of_a_path_gets_past(locked, method, path):
    for spelled in spellings(path):
        for way in (method, "HEAD", "OPTIONS", "PUT", "get", "TRACE", "CONNECT"):
            status, data = ask(locked, f"{way} {spelled} HTTP/1.1")
            body = data.partition(b"\r\n\r\n")[2]
            assert status in (400, 401, 404, 501) or (status in (204, 405) and "ui" in spelled), (
                way,
                spelled,
                data,
            )
            assert b"double" not in body or b"error" in body
    assert ask(locked, f"{method} {path} HTTP/1.0")[0] == 401
    for wrong in (
        ["authorization: Bearer x"], ["authorization: Basic Ym9zczo="], ["authorization:"], ["x-api-key:"], ["x-api-key: *"],
        [f"authorization: {bearer('boss')['authorization']}"] * 2, [f"authorization: Bearer{secret('boss')}"],
        [f"x-api-key: {secret('boss')}", f"authorization: Bearer {secret('boss')}"], [f"cookie: x-api-key={secret('boss')}"],
        [f"X_API_KEY: {secret('boss')}"], [f"authorization: Bearer {secret('boss')[:-1]}"], ["x-forwarded-user: boss"],
    ):  # fmt: skip
        assert ask(locked, f"{method} {path} HTTP/1.1", headers=wrong)[0] == 401, wrong
    assert ask(locked, f"{method} {path}?api_key={secret('boss')} HTTP/1.1")[0] == 401


def test_probes_and_the_page_need_no_key(locked):
    for path in ("/v2/health/live", "/v2/health/ready", "/ui/", "/ui/main.js"):
        assert ask(locked, f"GET {path} HTTP/1.1", headers=["authorization: Bearer wrong"])[0] == 200
    for path in (
        "/ui/../v2",
        "/ui/%2e%2e/metrics",
        "/ui//metrics",
        "/ui/..%2fv2",
        "/ui/__init__.py",
        "/ui/..%2f__init__.py",
    ):
        assert ask(locked, f"GET {path} HTTP/1.1")[0] in (400, 404)


# ------------------------------------------------------------------------------------------------- gRPC before any key

PROBES = ["/inference.GRPCInferenceService/ServerLive", "/inference.GRPCInferenceService/ServerReady"]


def resident(server):
    return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize("path", [*PROBES, "/inference.GRPCInferenceService/ModelInfer"])
def test_large_messages_of_strangers_are_not_held(locked, path):
    """20 calls with 40 MB each: they are answered without being read. (A health check has to be read to be answered; one
    at a time of each connection is.)"""
    before = resident(locked)
    with grpc.insecure_channel(locked.grpc, [("grpc.max_send_message_length", -1)]) as channel:
        call = channel.unary_unary(path)
        calls = [call.future(bytes(40 << 20), timeout=60) for _ in range(20)]
        highest = 0
        while not all(c.done() for c in calls):
            highest = max(highest, resident(locked))
            time.sleep(0.01)
        assert {c.code().name for c in calls} <= {"OK", "UNAUTHENTICATED"}
    assert highest - before < 250 << 20, (highest - before) >> 20


def test_watches_do_not_take_the_places_of_calls(locked):
    """Of 600 streams that need no key, some are refused; calls go on."""
    with grpc.insecure_channel(locked.grpc) as channel:
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")
        watches = [watch(b"", timeout=30) for _ in range(600)]
        codes = []
        for w in watches:
            try:
                assert next(w) == b"\x08\x01"
            except grpc.RpcError as e:
                codes.append(e.code().name)
        assert codes == ["UNAVAILABLE"] * (600 - 512)
        assert channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=10) == b"\x08\x01"
        for w in watches:
            w.cancel()
    with Client("grpc", locked.grpc) as client:
        assert client.is_server_live() and client.is_model_ready("double", headers=bearer("boss"))
