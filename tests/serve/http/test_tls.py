# SPDX-License-Identifier: Apache-2.0
"""TLS, with certificates of clients too; and clients that never shake hands."""

import ssl
import time

import pytest
from certificates import certificate
from http_server import RULES, Running
from wire import GOOD, Connection, request


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    own, clients = (certificate(name).write(folder, name) for name in ("server", "client"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*own)
    context.load_verify_locations(clients[0])
    context.verify_mode = ssl.CERT_REQUIRED
    trusting = ssl.create_default_context(cafile=str(own[0]))
    known = ssl.create_default_context(cafile=str(own[0]))
    known.load_cert_chain(*clients)
    with Running(ssl=context) as running:
        yield running, trusting, known


def test_requests(secure):
    server, _, known = secure
    with Connection(server) as c:
        c.socket = known.wrap_socket(c.socket, server_hostname="127.0.0.1")
        for _ in range(3):
            c.send(GOOD)
            assert c.answer().status == 200
        c.send(request("/v2/models/mlp/infer", headers=[("content-length", 1 << 40)], length=False))
        assert c.answer().status == 413 and c.ended()


def test_clients_without_a_certificate(secure):
    server, trusting, _ = secure
    with Connection(server) as c, pytest.raises((ssl.SSLError, ConnectionError)):
        c.socket = trusting.wrap_socket(c.socket, server_hostname="127.0.0.1")
        c.send(GOOD)
        assert c.answer() is None
        raise ConnectionResetError


def test_plain_text_and_silence(secure):
    server, _, _ = secure
    with Connection(server) as c:
        c.send(GOOD)
        assert c.ended()
    with Connection(server) as c:
        begin = time.monotonic()
        assert c.ended()
        assert time.monotonic() - begin < 5 * RULES.head
