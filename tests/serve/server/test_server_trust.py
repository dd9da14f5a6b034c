# SPDX-License-Identifier: Apache-2.0
"""Signed versions on a whole server of two workers; keys are read again on SIGHUP."""

import signal
import subprocess

import pytest
from process import X, command, environment, serving, wait_until
from small_models import put, save, scale

from fastinfer.serve.repository import releases, signing


def test_signatures_hold_in_every_worker(tmp_path):
    public = signing.new_key(tmp_path / "key.pem")
    signer = signing.Signer(tmp_path / "key.pem")
    root = tmp_path / "models"
    root.mkdir()
    releases.push(root, "signed", save(tmp_path / "m.onnx", scale(2.0)), signer=signer)
    put(root, "unsigned", 1, scale(3.0))
    trust = tmp_path / "trust.toml"
    trust.write_text(f'keys = ["{public}"]\n')
    with serving(root, "--workers", 2, "--trusted-keys", trust, folder=tmp_path, wait=False) as s:
        wait_until(lambda: s.log.read_text().count("worker is ready") == 2)
        answers = [(s.infer("signed", X)[0], s.infer("unsigned", X)[0]) for _ in range(20)]
        assert {a for a, _ in answers} == {200} and {b for _, b in answers} == {503}
        (index,) = [m for m in s.ask("POST", "/v2/repository/index")[1] if m["name"] == "unsigned"]
        assert index["state"] == "UNAVAILABLE" and "not signed" in index["reason"]
        trust.write_text(f'keys = ["{public}"]\nrevoked_keys = ["{signing.key_id(signer.public)}"]\n')
        s.process.send_signal(signal.SIGHUP)
        wait_until(lambda: {s.infer("signed", X)[0] for _ in range(10)} == {503})


@pytest.mark.parametrize("workers", [1, 2])
def test_a_broken_file_of_keys_ends_the_start(tmp_path, workers):
    put(tmp_path / "models", "m", 1, scale(2.0))
    (tmp_path / "trust.toml").write_text("keys = [")
    options = ("--http-port", 18000, "--no-grpc", "--workers", workers, "--trusted-keys", tmp_path / "trust.toml")
    ended = subprocess.run(
        command(tmp_path / "models", *options), env=environment(), capture_output=True, text=True, timeout=60
    )
    assert ended.returncode != 0 and "trust.toml" in ended.stderr and "Traceback" not in ended.stderr
