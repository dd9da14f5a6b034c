# SPDX-License-Identifier: Apache-2.0
"""Clients that ask a server without end, and what became of their requests."""

import concurrent.futures
import http.client
import threading
import time

from process import X


class Load:
    """Clients on connections of their own, until they are stopped or told that the server ends."""

    def __init__(self, server, clients=8):
        self.server, self.stop = server, threading.Event()
        self.good, self.refused, self.lost = 0, 0, []
        self.guard = threading.Lock()
        self.pool = concurrent.futures.ThreadPoolExecutor(clients)
        self.futures = [self.pool.submit(self.client) for _ in range(clients)]

    def client(self):
        connection = self.server.connect()
        while not self.stop.is_set():
            sent = False
            try:
                connection.connect() if connection.sock is None else None
                sent = True
                status, answer = self.server.infer("double", X, connection)
            except (OSError, http.client.HTTPException) as e:
                connection.close()
                # Before anything was sent nothing can be lost; a kept connection that the server has closed while idle
                # answers nothing at all, and clients send again.
                if sent and not isinstance(e, (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)):
                    with self.guard:
                        self.lost.append(repr(e))
                time.sleep(0.01)
                continue
            with self.guard:
                if status == 200 and answer["outputs"][0]["data"] == [2.0, 4.0, 6.0, 8.0]:
                    self.good += 1
                elif status == 503:
                    self.refused += 1
                else:
                    self.lost.append(f"{status} {answer}")

    def end(self):
        self.stop.set()
        for f in self.futures:
            f.result(30)
        self.pool.shutdown()
