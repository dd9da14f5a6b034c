# SPDX-License-Identifier: Apache-2.0
"""TLS and client certificates, on both wires."""

import datetime
import http.client

import pytest
import tritonclient.grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from process import X, client_context, serving


def certificates(folder):
    """An authority, a server's certificate for 127.0.0.1 and a client's, as PEM files."""

    def write(name, subject, issuer=None, ca=False):
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.timezone.utc)
        title = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)])
        made = (
            x509.CertificateBuilder().subject_name(title).issuer_name(issuer[0] if issuer else title)
            .public_key(key.public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca, None), True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
            .sign(issuer[1] if issuer else key, hashes.SHA256())
        )  # fmt: skip
        (folder / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
        (folder / f"{name}.key").write_bytes(key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))  # fmt: skip
        return title, key

    authority = write("ca", "test authority", ca=True)
    write("server", "localhost", authority)
    write("client", "a client", authority)
    write("stranger", "a stranger")


def test_tls_and_client_certificates(root, tmp_path):
    certificates(tmp_path)
    p = lambda name: tmp_path / name  # noqa: E731
    options = ["--certificate", p("server.pem"), "--key", p("server.key"), "--client-ca", p("ca.pem")]
    known = client_context(p("ca.pem"), p("client.pem"), p("client.key"))
    with serving(root, *options, folder=tmp_path, tls=known) as s:
        assert s.infer("double", X)[0] == 200
        for context in (client_context(p("ca.pem")), client_context(p("ca.pem"), p("stranger.pem"), p("stranger.key"))):
            s.tls = context
            with pytest.raises((OSError, http.client.HTTPException)):
                s.ask("GET", "/v2/health/live")
        s.tls = None
        with pytest.raises((OSError, http.client.HTTPException)):  # plain HTTP
            s.ask("GET", "/v2/health/live")
        with tritonclient.grpc.InferenceServerClient(
            f"localhost:{s.grpc_port}", ssl=True, root_certificates=str(p("ca.pem")),
            private_key=str(p("client.key")), certificate_chain=str(p("client.pem")),
        ) as client:  # fmt: skip
            assert client.is_server_ready()
        s.tls = known
