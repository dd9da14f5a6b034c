# SPDX-License-Identifier: Apache-2.0
"""TLS and client certificates, on both wires."""

import http.client

import pytest
import tritonclient.grpc
from certificates import certificates
from process import X, client_context, serving


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
