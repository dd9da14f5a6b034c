# SPDX-License-Identifier: Apache-2.0
"""Clients that go away before they are answered cost nothing more, and nobody else anything."""

import threading
import time

import numpy as np
import pytest
import tritonclient.grpc
from load import Load
from process import X, infer_request, serving, wait_until
from small_models import heavy, put

SETTINGS = "threads = 1\n[batching]\nmax_batch = 256\nmax_wait = 'any'\n"


@pytest.fixture
def slow(root, tmp_path):
    put(root, "slow", 1, heavy(), SETTINGS)
    with serving(root, folder=tmp_path) as s:
        s.infer("slow", X * 256)
        yield s


def abandon_http(server, seconds):
    connection = server.connect()
    connection.connect()
    connection.sock.sendall(infer_request("slow", X * 256))
    time.sleep(seconds)
    connection.sock.close()


def abandon_grpc(server, seconds):
    given = tritonclient.grpc.InferInput("x", [256, 4], "FP32")
    given.set_data_from_numpy(np.array(X * 256, np.float32))
    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{server.grpc_port}") as client:
        call = client.async_infer("slow", [given], lambda result, error: None)
        time.sleep(seconds)
        call.cancel()


@pytest.mark.parametrize("abandon", [abandon_http, abandon_grpc])
def test_requests_of_clients_that_are_gone_are_dropped_from_the_queue(slow, abandon):
    """40 requests, each a call of its own, whose clients go at once: nearly none of them is run."""
    before = slow.statistics("slow")["execution_count"]
    clients = [threading.Thread(target=abandon, args=(slow, 0.1)) for _ in range(40)]
    for c in clients:
        c.start()
    for c in clients:
        c.join()
    start = time.monotonic()
    assert slow.infer("slow", X * 256)[0] == 200
    waited = time.monotonic() - start
    assert slow.gauges()["fastinfer_queue_length"] == 0
    assert slow.statistics("slow")["execution_count"] - before < 20 and waited < 0.5


def test_nine_of_ten_clients_give_up_and_the_server_recovers(slow):
    """What is left is served as before, and afterwards nothing of it is remembered (Ray 41057)."""
    alone = min(_timed(slow) for _ in range(5))
    end = time.monotonic() + 2.0

    def impatient():
        while time.monotonic() < end:
            abandon_http(slow, 0.02)

    patient = Load(slow, clients=2, model="slow", x=X * 256, expected=X[0])
    crowd = [threading.Thread(target=impatient) for _ in range(18)]
    for c in crowd:
        c.start()
    for c in crowd:
        c.join()
    patient.end()
    assert patient.lost == [] and list(patient.counts) == ["ok"] and patient.good > 2
    wait_until(lambda: slow.gauges()["fastinfer_requests_in_flight"] == 0, 10)
    assert slow.gauges()["fastinfer_queue_length"] == 0
    assert min(_timed(slow) for _ in range(5)) < 4 * alone + 0.1


def _timed(server):
    start = time.monotonic()
    assert server.infer("slow", X * 256)[0] == 200
    return time.monotonic() - start
