# SPDX-License-Identifier: Apache-2.0
"""A server that is asked for several times what it can do: `python benchmarks/overload.py`.

Closed loops of more and more clients find the peak; then requests come by the clock at `--times` that rate, whatever the
answers do. Asked: how many good answers are left, how long they take, how fast the others are refused, and what the queue and
the process hold meanwhile. Then: when deadlines fire behind a call that takes longer. Server and load generator share the
machine, on loopback.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from loadtest import client, requests, servers
from onnx import TensorProto, helper, numpy_helper

F = TensorProto.FLOAT
IMAGE = (3, 112, 112)


def model(layers: int, image: bool, width: int = 1024) -> Any:
    """y = the mean of each third of a row of 3 (or of each plane of an image), after `layers` products with an identity:
    2 · layers · width² operations a row."""
    nodes, hidden = [], "x"
    if image:
        nodes = [
            helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
        ]
        hidden = "flat"
    for i, weight in enumerate(["first", *["identity"] * layers, "last"]):
        nodes.append(helper.make_node("MatMul", [hidden, weight], [hidden := f"h{i}"]))
    nodes.append(helper.make_node("Identity", [hidden], ["y"]))
    first = np.eye(3, width, dtype=np.float32)
    weights = {"first": first, "identity": np.eye(width, dtype=np.float32), "last": first.T.copy()}
    shape = ["n", *IMAGE] if image else ["n", 3]
    graph = helper.make_graph(
        nodes, "work", [helper.make_tensor_value_info("x", F, shape)], [helper.make_tensor_value_info("y", F, ["n", 3])],
        [numpy_helper.from_array(w, n) for n, w in weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@contextmanager
def serving(folder: Path, layers: int, image: bool, settings: str, workers: int) -> Iterator[servers.Running]:
    version = folder / "repository" / "work" / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(model(layers, image).SerializeToString())
    (version.parent / "model.toml").write_text(settings)
    port, grpc_port = servers.free_port(), servers.free_port()
    command = [sys.executable, "-m", "fastinfer", "serve", str(folder / "repository"), "--workers", str(workers)]
    command += ["--http-port", str(port), "--grpc-port", str(grpc_port), "--no-page"]
    environment = {**os.environ, "PYTHONPATH": str(servers.ROOT / "src")}
    with servers.started(command, folder / "log", env=environment) as process:
        servers.wait_for(port, "/v2/health/ready", process)
        yield servers.Running(port, grpc_port, process)


@dataclass
class Watch:
    """The queue's length and the process's memory (MiB), looked at ten times a second."""

    port: int
    pid: int
    queue: float = 0.0
    memory: float = 0.0

    def __post_init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        while not self._over.wait(0.1):
            connection.request("GET", "/metrics")
            for line in connection.getresponse().read().decode().splitlines():
                if line.startswith("fastinfer_queue_length "):
                    self.queue = max(self.queue, float(line.split()[1]))
            self.memory = max(self.memory, resident(self.pid))
        connection.close()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()


def resident(pid: int) -> float:
    """MiB."""
    (line,) = [x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def load(plan: client.Plan) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, client.__file__], input=plan.as_json(), capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def overload(
    server: servers.Running,
    feed: np.ndarray,
    times: float,
    seconds: float,
    most: int,
    clients: Sequence[int] = (4, 16, 32),
) -> dict[str, Any]:
    """Rates in requests per second, times in milliseconds, memory in MiB. most: connections of the open loop;
    clients: of the closed ones that look for the peak."""
    request = [requests.binary("work", {"x": feed})]
    assert server.process is not None
    pid = server.process.pid
    closed = {n: load(client.Plan(server.port, request, n, seconds=seconds, warm=0.3)) for n in clients}
    peak = max(row["rate"] for row in closed.values())
    before = resident(pid)
    watch = Watch(server.port, pid)
    plan = client.Plan(server.port, request, most, times * peak, seconds, warm=1.0)
    row = load(plan)
    watch.stop()
    after = load(client.Plan(server.port, request, 1, seconds=0.5))
    milli = lambda name: {k: round(1e3 * v, 2) for k, v in row.get(name, {}).items()}  # noqa: E731
    return {
        "peak": round(peak), "offered": round(plan.rate), "goodput": round(row["rate"] / peak, 3), "unsent": row["unsent"],
        "failed": row["failed"], "error": row["error"][:300], "refused": round(row["refused"] / seconds),
        "latency": milli("latency"), "refusal": milli("refusal"), "queue": watch.queue,
        "memory": [round(before), round(watch.memory)], "alone, after": round(1e3 * after["latency"]["p50"], 2),
        "alone, before": round(1e3 * load(client.Plan(server.port, request, 1, seconds=0.5))["latency"]["p50"], 2),
    }  # fmt: skip


def deadlines(
    server: servers.Running, long: np.ndarray, short: np.ndarray, timeout: float, count: int
) -> dict[str, Any]:
    """How late, in milliseconds, a request with a deadline is told so that waits behind a call which takes longer."""
    late, began = [], []
    connection = client.Connection(server.port)
    behind = client.Connection(server.port)
    header = f"timeout: {int(timeout * 1e6)}\r\n\r\n".encode()
    timed = requests.binary("work", {"x": short}).replace(b"\r\n\r\n", b"\r\n" + header, 1)
    for _ in range(count):
        start = time.perf_counter()
        connection.socket.sendall(requests.binary("work", {"x": long}))
        time.sleep(0.01)
        sent = time.perf_counter()
        behind.socket.sendall(timed)
        while (answer := behind.receive()) is None:
            pass
        if answer[9:12] == b"504":
            late.append(1e3 * (time.perf_counter() - sent - timeout))
        while connection.receive() is None:
            pass
        began.append(time.perf_counter() - start)
        for _ in range(60):  # what a request costs is that of short ones
            behind.socket.sendall(requests.binary("work", {"x": short}))
            while behind.receive() is None:
                pass
    return {"call": round(1e3 * float(np.median(began)), 1), "fired": len(late), "of": count,
            "late": {"p50": round(float(np.median(late)), 2), "max": round(max(late), 2)} if late else {}}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=float, default=3.0)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--layers", type=int, default=80)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--connections", type=int, default=1024)
    parser.add_argument("--image", action="store_true", help="requests of 150 kB instead of 12 bytes")
    parser.add_argument("--settings", default="threads = 1\n[batching]\nmax_batch = 4\n", help="model.toml")
    a = parser.parse_args()
    feed = np.ones((1, *IMAGE) if a.image else (1, 3), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        with serving(Path(folder), a.layers, a.image, a.settings, a.workers) as server:
            print(json.dumps(overload(server, feed, a.times, a.seconds, a.connections), indent=1))
            long = np.ones((16, *IMAGE) if a.image else (512, 3), np.float32)
            print(json.dumps({"deadlines": deadlines(server, long, feed, 0.03, 10)}))


if __name__ == "__main__":
    main()
