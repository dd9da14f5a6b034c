# SPDX-License-Identifier: Apache-2.0
"""What a machine can run out of: descriptors, disk, a directory to write to, time that goes forward. Case 40."""

import asyncio
import http.client
import json
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from clients import Client
from onnx import TensorProto as T
from onnx import helper
from small_models import mlp, ones, put, request, scale
from tritonclient.utils import InferenceServerException
from whole import SOURCE, serving

from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.registry import Registry

X = np.ones((1, 4), np.float32)


def limited(what, most):
    return lambda: resource.setrlimit(what, (most, most))


@pytest.mark.parametrize("wire", ["http", "grpc"])
def test_no_descriptors_left(tmp_path, wire):
    """Idle clients hold all descriptors of the process: when they go, others are served; the log does not fill a disk."""
    put(tmp_path, "double", 1, scale(2))
    with serving(tmp_path, preexec=limited(resource.RLIMIT_NOFILE, 80)) as server:
        with Client(wire, getattr(server, wire)) as before:
            assert before.ask("double", "x", X).as_numpy("y")[0, 0] == 2
            host, _, port = getattr(server, wire).rpartition(":")
            idle = []
            for _ in range(120):
                s = socket.socket()
                s.settimeout(2)
                s.connect((host, int(port)))
                idle.append(s)
            assert before.ask("double", "x", X).as_numpy("y")[0, 0] == 2  # who is in is served
            time.sleep(0.5)  # what a busy loop around accept() would write in this time
            assert server.process.poll() is None and len(server.records) < 100
            for s in idle:
                s.close()
        with Client(wire, getattr(server, wire)) as after:
            assert after.ask("double", "x", X).as_numpy("y")[0, 0] == 2


def mounted(*commands):
    """A prefix that runs a command where some mounts are, which nobody else sees and which end with it."""
    prefix = ["unshare", "-rm", "sh", "-ec", " && ".join([*commands, 'exec "$0" "$@"'])]
    if shutil.which("unshare") is None or subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("no mounts of one's own here")
    return prefix


@pytest.mark.parametrize("how", ["full", "file-size"])
def test_no_room_for_compiled_programs(tmp_path, how):
    """A cache on a full disk: the model is served all the same, and nothing half-written stays."""
    put(tmp_path / "models", "big", 1, mlp(256))
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o700)
    limits = (
        {"prefix": mounted(f"mount -t tmpfs -o size=100k,mode=700 none {cache}")} if how == "full" else
        {"preexec": limited(resource.RLIMIT_FSIZE, 100_000)}
    )  # fmt: skip
    with serving(tmp_path / "models", "--cache", cache, **limits) as server:
        with Client("http", server.http) as client:
            assert client.ask("big", "x", np.ones((1, 256), np.float32)).as_numpy("y").shape == (1, 256)
        server.until(lambda r: "is not cached" in r["message"], 5)
        assert list(Path(f"/proc/{server.process.pid}/root{cache}").iterdir()) == []


def test_a_file_system_that_cannot_be_written(tmp_path):
    """Repository and cache are read-only: models are served; what is live cannot be changed, and the reason names no
    path."""
    put(tmp_path, "double", 1, scale(2))
    put(tmp_path, "double", 2, scale(3))
    (tmp_path / "cache").mkdir(mode=0o700)
    prefix = mounted(f"mount --bind {tmp_path} {tmp_path}", f"mount -o remount,bind,ro {tmp_path}")
    with serving(tmp_path, "--cache", tmp_path / "cache", prefix=prefix) as server:
        connection = http.client.HTTPConnection(server.http, timeout=20)
        connection.request("POST", "/fastinfer/v1/models/double/promote", json.dumps({"version": "1"}))
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        assert answer.status == 503 and "Read-only" in text and str(tmp_path) not in text
        with Client("http", server.http) as client:
            assert client.ask("double", "x", X).as_numpy("y")[0, 0] == 3


def test_a_repository_that_goes_away(tmp_path):
    """As when a network disk is gone: what is loaded is served; a load fails; readiness stays."""
    put(tmp_path / "models", "double", 1, scale(2))
    with serving(tmp_path / "models") as server:
        (tmp_path / "models").rename(tmp_path / "gone")
        with Client("grpc", server.grpc) as client:
            with pytest.raises(InferenceServerException) as e:
                client.load_model("double")
            assert str(tmp_path) not in str(e.value)
            assert client.ask("double", "x", X).as_numpy("y")[0, 0] == 2 and client.is_server_ready()
            (tmp_path / "gone").rename(tmp_path / "models")
            put(tmp_path / "models", "double", 2, scale(3))
            client.load_model("double")
            assert client.ask("double", "x", X).as_numpy("y")[0, 0] == 3


def test_a_clock_that_jumps(tmp_path, monkeypatch):
    """The wall clock says dates only: a day forward or back ends no request early and keeps none."""
    put(tmp_path, "double", 1, scale(2))
    wall = time.time

    async def infer(registry, timeout):
        asked = request("double", x=ones())
        asked.timeout = timeout
        return (await registry.infer(asked)).outputs[0].array[0, 0]

    async def main():
        registry = Registry(tmp_path)
        assert await registry.open() == {}
        for jump in (0, 86400, -86400, 10**9):
            monkeypatch.setattr(time, "time", lambda jump=jump: wall() + jump)
            assert await infer(registry, 20.0) == 2
            with pytest.raises(ServeError) as e:
                await infer(registry, 0.0)
            assert e.value.kind is Kind.DEADLINE
        await registry.close()

    asyncio.run(asyncio.wait_for(main(), 60))


ENDS = """
import asyncio, sys, threading
sys.path[:0] = {path!r}
import numpy as np
from pathlib import Path
from small_models import mlp, put, request
from fastinfer.serve.registry import Registry

root = Path({root!r})
put(root, "m", 1, mlp(512))
ready = threading.Event()

async def main():
    registry = Registry(root)
    await registry.open()
    x = np.ones((2000, 512), np.float32)
    while True:
        tasks = [asyncio.ensure_future(registry.infer(request("m", x=x))) for _ in range(4)]
        await tasks[0]
        ready.set()

threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
assert ready.wait(60)
print("ends")
"""


def test_an_interpreter_that_ends_while_models_run(tmp_path):
    """A daemon thread is in the middle of native code when the main thread returns."""
    script = ENDS.format(path=[str(SOURCE), str(Path(__file__).parents[1])], root=str(tmp_path))
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60)
        assert done.returncode == 0 and done.stdout == b"ends\n" and b"Fatal" not in done.stderr, done.stderr


def endless():
    """x, doubled m times."""
    value = helper.make_tensor_value_info
    steps = [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Add", ["v", "v"], ["w"])]
    body = helper.make_graph(steps, "b", [value("i", T.INT64, []), value("c", T.BOOL, []), value("v", T.FLOAT, ["n"])],
                             [value("d", T.BOOL, []), value("w", T.FLOAT, ["n"])])  # fmt: skip
    loop = helper.make_node("Loop", ["m", "", "x"], ["y"], body=body)
    graph = helper.make_graph(
        [loop], "g", [value("x", T.FLOAT, ["n"]), value("m", T.INT64, [])], [value("y", T.FLOAT, ["n"])]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def test_a_request_that_never_ends(tmp_path):
    """A Loop of 2^63 trips holds its own model: its time is told to be up, others are served, and the server can end."""
    put(tmp_path, "loop", 1, endless())
    put(tmp_path, "double", 1, scale(2))
    with serving(tmp_path, "--grace=1") as server, Client("grpc", server.grpc) as client:
        x = client.tensor("x", np.ones(2, np.float32))
        loop = lambda trips, **o: client.infer("loop", [x, client.tensor("m", np.array(trips, np.int64), "INT64")], **o)  # noqa: E731
        assert loop(3).as_numpy("y").tolist() == [8, 8]
        for trips in (2**63 - 1, 3):
            began = time.monotonic()
            with pytest.raises(InferenceServerException, match="time") as e:
                loop(trips, timeout=300_000)
            assert e.value.status() == "StatusCode.DEADLINE_EXCEEDED" and time.monotonic() - began < 5
        assert client.ask("double", "x", X).as_numpy("y")[0, 0] == 2
        assert server.close() == 0


KILLED = """
import os, signal, sys
sys.path[:0] = {path!r}
from fastinfer.serve.repository.programs import ProgramCache

def save(path):
    path.write_bytes(bytes(1000))
    if {when!r} == "half":
        os.kill(os.getpid(), signal.SIGKILL)

replace = os.replace
def stop(*names):
    replace(*names)
    os.kill(os.getpid(), signal.SIGKILL)

if {when!r} == "between":
    os.replace = stop
ProgramCache({cache!r}).store({key!r}, save)
"""


@pytest.mark.parametrize("when", ["half", "between"])
def test_a_process_that_is_killed_while_it_writes_the_cache(tmp_path, when):
    """With half a program, or with a new program and the checksum of the old one: it is made anew."""
    put(tmp_path / "models", "double", 1, scale(2))
    cache = tmp_path / "cache"

    def serve():
        with serving(tmp_path / "models", "--cache", cache) as server, Client("http", server.http) as client:
            assert client.ask("double", "x", X).as_numpy("y")[0, 0] == 2
        return sorted(p.name for p in cache.iterdir() if p.suffix in (".safetensors", ".json"))

    note, program = serve()
    key = program.removesuffix(".safetensors")
    script = KILLED.format(path=[str(SOURCE)], when=when, cache=str(cache), key=key)
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == -signal.SIGKILL
    assert ((cache / program).stat().st_size == 1000) is (when == "between")
    assert serve() == [note, program] and (cache / program).stat().st_size != 1000


def test_as_many_descriptors_as_allowed(tmp_path):
    """A shell gives 1024, which is fewer than the connections that a server takes; more are to be had for the asking."""
    put(tmp_path, "double", 1, scale(2))
    limits = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 700))  # noqa: E731
    with serving(tmp_path, preexec=limits) as server:
        assert "Max open files            700" in Path(f"/proc/{server.process.pid}/limits").read_text()
        idle = [socket.create_connection(("127.0.0.1", server.port), 5) for _ in range(300)]
        with Client("http", server.http) as client:
            assert client.ask("double", "x", X).as_numpy("y")[0, 0] == 2
        for s in idle:
            s.close()
