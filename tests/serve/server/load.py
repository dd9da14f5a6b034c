# SPDX-License-Identifier: Apache-2.0
"""Clients that ask a server without end, and what became of every request that was sent."""

import concurrent.futures
import contextlib
import http.client
import threading
import time
from collections import Counter

import numpy as np
import tritonclient.grpc
from process import X


class Load:
    """Clients on connections of their own, until they are stopped. counts: of what became of requests: "ok" or the status;
    lost: those that were sent and never answered, or answered wrongly. A connection that is refused loses nothing: there
    is no server there, and nothing was sent."""

    def __init__(self, server, clients=8, model="double", x=X, expected=(2.0, 4.0, 6.0, 8.0), pause=0.0):
        self.server, self.model, self.x, self.expected, self.pause = server, model, x, list(expected), pause
        self.stop, self.guard = threading.Event(), threading.Lock()
        self.counts, self.lost, self.times = Counter(), [], []
        self.pool = concurrent.futures.ThreadPoolExecutor(clients)
        self.futures = [self.pool.submit(self.client) for _ in range(clients)]

    @property
    def good(self):
        return self.counts["ok"]

    def note(self, status, values, began):
        with self.guard:
            self.times.append(time.monotonic() - began)
            right = status == "ok" and values[: len(self.expected)] == self.expected
            self.counts["ok" if right else str(status)] += 1
            if status == "ok" and not right:
                self.lost.append(f"wrong: {values[:8]}")

    def client(self):
        connection = self.server.connect()
        while not self.stop.wait(self.pause):
            began = time.monotonic()
            try:
                if connection.sock is None:
                    connection.connect()
            except OSError:
                time.sleep(0.01)
                continue
            try:
                status, answer = self.server.infer(self.model, self.x, connection)
            except (OSError, http.client.HTTPException) as e:
                connection.close()
                with self.guard:
                    self.lost.append(repr(e))
                continue
            self.note("ok" if status == 200 else status, answer["outputs"][0]["data"] if status == 200 else [], began)
        connection.close()

    def end(self):
        self.stop.set()
        for f in self.futures:
            f.result(30)
        self.pool.shutdown()


class GrpcLoad(Load):
    """The same over gRPC, each client with a channel of its own."""

    def client(self):
        with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{self.server.grpc_port}") as client:
            given = tritonclient.grpc.InferInput("x", list(np.shape(self.x)), "FP32")
            given.set_data_from_numpy(np.array(self.x, np.float32))
            while not self.stop.wait(self.pause):
                began = time.monotonic()
                try:
                    answer = client.infer(self.model, [given]).as_numpy("y")
                except tritonclient.grpc.InferenceServerException as e:
                    with self.guard:
                        self.lost.append(f"{e.status()} {e.message()}")
                    continue
                self.note("ok", answer.ravel().tolist(), began)


class Balancer(threading.Thread):
    """What a load balancer does: asks for readiness again and again, and takes its clients away `lag` seconds after the
    server says that it is not ready."""

    def __init__(self, server, loads, lag=0.2):
        super().__init__()
        self.server, self.loads, self.lag = server, loads, lag
        self.noticed = 0.0
        self.start()

    def run(self):
        with contextlib.suppress(OSError, http.client.HTTPException):
            while self.server.ask("GET", "/v2/health/ready")[0] == 200:
                time.sleep(0.01)
        self.noticed = time.monotonic()
        time.sleep(self.lag)
        for load in self.loads:
            load.stop.set()
