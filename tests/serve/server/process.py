# SPDX-License-Identifier: Apache-2.0
"""A server as its users start it: a process of the command, on loopback."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

X = [[1.0, 2.0, 3.0, 4.0]]
SOURCE = Path(__file__).resolve().parents[3] / "src"


def wait_until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.01)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def body_of(x):
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": list(np.shape(x)), "data": np.ravel(x).tolist()}]}


def infer_request(model, x):
    """A whole HTTP request."""
    body = json.dumps(body_of(x)).encode()
    return f"POST /v2/models/{model}/infer HTTP/1.1\r\nhost: h\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


class Running:
    def __init__(self, process, port, grpc_port, log, tls):
        self.process, self.port, self.grpc_port, self.log, self.tls = process, port, grpc_port, log, tls

    def connect(self):
        if self.tls is not None:
            return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=20, context=self.tls)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def ask(self, method, path, body=None, headers=None, connection=None):
        """(status, JSON or text). connection: one that stays open."""
        own = connection or self.connect()
        try:
            data = json.dumps(body) if body is not None else None
            own.request(method, path, data, headers or {})
            response = own.getresponse()
            text = response.read().decode()
            kind = response.getheader("content-type", "")
            return response.status, json.loads(text) if text and "json" in kind else text
        finally:
            if connection is None:
                own.close()

    def infer(self, model, x, connection=None, **options):
        return self.ask("POST", f"/v2/models/{model}/infer", body_of(x), connection=connection, **options)

    def wait(self, path="/v2/health/ready", seconds=60):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.process.poll() is None, f"the server ended: {self.log.read_text()}"
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.ask("GET", path)[0] == 200:
                    return
            time.sleep(0.05)
        raise AssertionError(f"not ready after {seconds} s: {self.log.read_text()}")

    def statistics(self, model):
        """Of its only version."""
        (row,) = self.ask("GET", f"/v2/models/{model}/stats")[1]["model_stats"]
        return row

    def model(self, name):
        """As the overview has it."""
        return next(m for m in self.ask("GET", "/fastinfer/v1/overview")[1]["models"] if m["name"] == name)

    def samples(self):
        """Of /metrics."""
        families = text_string_to_metric_families(self.ask("GET", "/metrics")[1])
        return [sample for family in families for sample in family.samples]

    def sample(self, name, **labels):
        (found,) = [m for m in self.samples() if m.name == name and labels.items() <= m.labels.items()]
        return found.value

    def gauges(self):
        """The samples that have no labels."""
        return {m.name: m.value for m in self.samples() if not m.labels}

    def resources(self):
        """rss in KiB, threads and file descriptors of the server's process."""
        folder = Path(f"/proc/{self.process.pid}")
        rows = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line)
        return {"rss": int(rows["VmRSS"].split()[0]), "threads": int(rows["Threads"]),
                "fds": len(list((folder / "fd").iterdir()))}  # fmt: skip

    def workers(self):
        """Process ids of the server's children that live."""
        pid = self.process.pid
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except OSError:
            return []
        return [int(p) for p in children if self.alive(p)]

    @staticmethod
    def alive(pid):
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
        except OSError:
            return False

    def end(self, number=signal.SIGTERM, seconds=30):
        """The exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(seconds)


def command(repository, *options):
    return [sys.executable, "-m", "fastinfer", "serve", str(repository), *map(str, options)]


def environment():
    return {**os.environ, "PYTHONPATH": str(SOURCE)}


@contextlib.contextmanager
def serving(repository, *options, folder, tls=None, wait=True):
    """folder: for the log. tls: a client's SSLContext, where the server speaks TLS."""
    port, grpc_port = free_port(), free_port()
    log = Path(folder) / f"server-{port}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command(repository, "--http-port", port, "--grpc-port", grpc_port, *options),
            stdout=out, stderr=out, env=environment(),
        )  # fmt: skip
    running = Running(process, port, grpc_port, log, tls)
    try:
        if wait:
            running.wait()
        yield running
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def client_context(ca, certificate=None, key=None):
    context = ssl.create_default_context(cafile=str(ca))
    context.check_hostname = False
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context
