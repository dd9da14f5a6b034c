# SPDX-License-Identifier: Apache-2.0
"""TLS, with certificates of clients too; and clients that never shake hands."""

import datetime
import ipaddress
import ssl
import time

import pytest
from conftest import RULES, Running
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from wire import GOOD, Connection, request


def certificate(folder, name):
    """A self-signed one for 127.0.0.1: (certificate, key), as files."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / f"{name}.pem", folder / f"{name}.key"
    certificate.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, private


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    own, clients = certificate(folder, "server"), certificate(folder, "client")
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
