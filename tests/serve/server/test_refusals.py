# SPDX-License-Identifier: Apache-2.0
"""What a server cannot be started with, and what its operator is told: one line, at once, and exit code 5."""

import os
import signal
import socket
import subprocess

import pytest
from certificates import certificates
from cryptography.hazmat.primitives import serialization
from process import command, environment

from fastinfer.cli import app


@pytest.fixture
def refused(root, capsys):
    """The message for options of `fastinfer serve`, within this process: what is refused starts nothing."""

    def give_up(*_):
        raise AssertionError("it was not refused")

    def ask(*options, repository=root):
        signal.alarm(30)
        code = app.run(["serve", str(repository), "--http-port", "0", "--grpc-port", "0", *map(str, options)])
        signal.alarm(0)
        text = " ".join(capsys.readouterr().err.split())
        assert code == 5 and text.startswith("error: ") and "Traceback" not in text, (options, code, text)
        return text

    before = signal.signal(signal.SIGALRM, give_up)
    yield ask
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    "options, message",
    [
        (["--host", "0.0.0.0"], "would let everyone in"),
        (["--workers", "0"], "workers=0; needed: at least 1"),
        (["--drain", "-1"], "drain=-1.0; needed: at least 0"),
        (["--grace", "nan"], "grace=nan; needed: at least 0"),
        (["--max-body", "0"], "requests of at most 0 bytes"),
        (["--max-connections", "0"], "connections=0"),
        (["--issuer", "https://id.example"], "an issuer, an audience"),
        (["--jwks", "keys.json"], "an issuer, an audience"),
        (["--keys", "none.toml"], "none.toml"),
        (["--trusted-keys", "none.toml"], "none.toml"),
        (["--public", "everything"], "no scope is called 'everything'; known: infer, read, admin, metrics"),
        (["--public", "read"], "public scopes are what callers without keys or tokens may do"),
        (["--model", "doubel"], "no model 'doubel'; it has: double"),
        (["--http-port", "70000"], "0 to 65535"),
        (["--http-port", "9999", "--grpc-port", "9999"], "HTTP and gRPC are both given port 9999"),
        (["--workers", "2"], "several workers need fixed ports"),
        (["--workers", "2", "--shared-memory", "--http-port", "9998", "--grpc-port", "9999"], "needs workers=1"),
        (["--host", "no-such-host.invalid", "--insecure"], "no such host is known"),
        (["--host", "192.0.2.1", "--insecure"], "it is no address of this machine"),
    ],
)
def test_options_that_cannot_be(refused, options, message):
    assert message in refused(*options)


def test_repositories_that_cannot_be(refused, root, tmp_path):
    assert "is not a directory" in refused(repository=tmp_path / "absent")
    assert "is not a directory" in refused(repository=root / "double" / "1" / "model.onnx")
    (tmp_path / "file").write_text("")
    assert "the cache" in refused("--cache", tmp_path / "file")
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    several = ("--workers", "2", "--http-port", "9998", "--grpc-port", "9999")
    for options in ((), several):
        assert "the program cache cannot be made" in refused("--cache", tmp_path / "file" / "cache", *options)
        assert f"'{shared}': the program cache must be" in refused("--cache", shared, *options)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_repository_that_may_not_be_read(refused, root):
    root.chmod(0)
    try:
        assert "cannot be read by this user" in refused()
    finally:
        root.chmod(0o755)


def test_certificates_that_cannot_be(refused, tmp_path):
    certificates(tmp_path)
    p = lambda name: tmp_path / name  # noqa: E731
    (tmp_path / "empty.pem").write_bytes(b"")
    key = serialization.load_pem_private_key(p("server.key").read_bytes(), None)
    p("locked.key").write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")))  # fmt: skip
    for certificate, key, ca, message in (
        ("server.pem", None, None, "both a certificate and its key"),
        ("absent.pem", "server.key", None, "absent.pem' cannot be read: No such file"),
        ("server.pem", "absent.key", None, "absent.key' cannot be read: No such file"),
        ("empty.pem", "server.key", None, "empty.pem' is not in PEM form"),
        ("server.pem", "client.key", None, "client.key' is not that of the certificate"),
        ("server.pem", "locked.key", None, "locked.key' is encrypted; needed: one without a password"),
        ("server.pem", "server.key", "absent.pem", "the client CA"),
        ("server.pem", "server.key", "empty.pem", "empty.pem' is not in PEM form"),
        (None, None, "ca.pem", "client certificates are checked over TLS only"),
    ):
        options = [("--certificate", certificate), ("--key", key), ("--client-ca", ca)]
        assert message in refused(*(x for name, file in options if file for x in (name, p(file)))), (
            certificate,
            key,
            ca,
        )


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("wire", ["http", "grpc"])
def test_a_port_that_is_taken(root, wire, workers):
    """Also one that its owner would share (SO_REUSEPORT), as gRPC does."""
    with socket.socket() as taken, socket.socket() as other:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        other.bind(("127.0.0.1", 0))
        ports = {"http": other.getsockname()[1], "grpc": other.getsockname()[1], wire: taken.getsockname()[1]}
        other.close()
        options = ["--http-port", ports["http"], "--grpc-port", ports["grpc"], "--workers", workers]
        done = subprocess.run(command(root, *options), env=environment(), capture_output=True, text=True, timeout=60)
    text = " ".join(done.stderr.split())
    assert done.returncode == 5 and "cannot listen on" in text and str(ports[wire]) in text and "Traceback" not in text


def test_help_says_how_it_ends(capsys):
    assert app.run(["serve", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "Exit codes: 0 it was told to end, 1 its workers" in text and "SIGHUP reads keys" in text
