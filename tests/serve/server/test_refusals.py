# SPDX-License-Identifier: Apache-2.0
"""What a server cannot be started with, and what its operator is told."""

import socket
import subprocess

from process import command, environment


def refused(root, *options):
    done = subprocess.run(command(root, *options), env=environment(), capture_output=True, text=True, timeout=60)
    return done.returncode, " ".join(done.stderr.split())


def test_what_cannot_be_served_is_refused_at_once(root, tmp_path):
    for options, message in (
        (["--host", "0.0.0.0"], "would let everyone in"),
        (["--workers", "0"], "at least 1"),
        (["--certificate", tmp_path / "c.pem"], "both a certificate and its key"),
        (["--issuer", "https://id.example"], "an issuer, an audience"),
        (["--keys", tmp_path / "none"], "No such file"),
        (["--http-port", "70000"], "0 to 65535"),
        (["--workers", "2", "--http-port", "0"], "fixed ports"),
    ):
        code, text = refused(root, *options)
        assert code == 5 and message in text, (options, code, text)
    assert refused(tmp_path / "absent")[0] == 5
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, text = refused(root, "--http-port", taken.getsockname()[1], "--no-grpc")
        assert code != 0 and "address already in use" in text.lower()
