# SPDX-License-Identifier: Apache-2.0
"""``fastinfer models`` against a running server: uploads (case 30), pulls, what is live, and who may do it."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from onnx import save_model
from small_models import put, scale
from test_push import kind_of

from fastinfer.cli.app import INPUT, OK, run
from fastinfer.errors import InputError
from fastinfer.serve.access.keys import digest_of
from fastinfer.serve.config import Config
from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.messages import Limits
from fastinfer.serve.repository import releases, remote
from fastinfer.serve.repository.log import Log
from fastinfer.serve.repository.remote import Remote
from fastinfer.serve.repository.signing import Signer, key_id, new_key
from fastinfer.serve.server import Server


class Running:
    """A server on a loop of its own."""

    def __init__(self, root, **options):
        self.config = Config(root, http_port=0, grpc_port=None, grace=1.0, **options)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    async def _open(self):
        self.server = Server(self.config)
        await self.server.listen()
        await self.server.load()

    def __enter__(self):
        self.thread.start()
        self.run(self._open())
        self.port = self.server.http_port
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    def __exit__(self, *exc):
        self.run(self.server.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()

    def ask(self, method, path, body=None, **headers):
        """(status, JSON)"""
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
        c.request(method, path, data, {k.replace("_", "-"): v for k, v in headers.items()})
        response = c.getresponse()
        text = response.read()
        c.close()
        return response.status, json.loads(text) if text else None

    def value(self, model):
        """y of ones, which is the model's factor."""
        status, answer = self.ask("POST", f"/predict/{model}", {"x": [[1, 1, 1, 1]]})
        return answer["y"][0][0] if status == 200 else answer["error"]


@pytest.fixture
def root(tmp_path):
    made = tmp_path / "root"
    made.mkdir()
    return made


@pytest.fixture
def running(root):
    with Running(root, allow_files=True) as r:
        yield r


def net(folder, factor, size=0):
    """A model with external data, and `size` bytes of ballast in a folder; returns the folder."""
    folder.mkdir()
    save_model(scale(factor), folder / "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    if size:
        (folder / "more").mkdir()
        (folder / "more" / "ballast.bin").write_bytes(os.urandom(size))
    return folder


def test_a_life_of_versions_over_http(running, tmp_path, capsys):
    def call(name, *arguments, code=OK):
        assert run(["models", name, running.url, *map(str, arguments)]) == code
        done = capsys.readouterr()
        return done.out if code == OK else done.err + done.out

    one, two = net(tmp_path / "one", 1), net(tmp_path / "two", 2, 100)
    (tmp_path / "model.toml").write_text("owner = 'me'")
    assert "m version 1" in call("push", "m", one, "--promote", "--settings", tmp_path / "model.toml")
    assert running.value("m") == 1
    assert json.loads(call("push", "m", two, "--canary", "50", "--json"))["version"] == "2"
    assert {running.value("m") for _ in range(4)} == {1, 2}
    assert call("promote", "m", "canary") == "m: 2: stable\n"
    assert running.value("m") == 2
    assert call("promote", "m", "1", "--alias", "old") == "m: 1: old; 2: stable\n"
    assert running.value("m@old") == 1
    assert call("rollback", "m") == "m: 1: old, stable\n"
    assert running.value("m") == 1
    listed = json.loads(call("list", "m", "--json"))
    assert [(v["version"], v["roles"]) for v in listed] == [("1", ["old", "stable"]), ("2", [])]
    assert "is live (old, stable)" in call("remove", "m", "1", code=INPUT)
    call("pull", "m", "2", "-o", tmp_path / "out")
    for name in ("model.onnx", "w.bin", "more/ballast.bin"):
        assert (tmp_path / "out" / name).read_bytes() == (two / name).read_bytes()
    assert (tmp_path / "out" / "manifest.json").exists()
    call("remove", "m", "2")
    assert "no version" in call("pull", "m", "2", "-o", tmp_path / "out2", code=INPUT)
    entries = json.loads(call("log", "m", "--check", "--json"))
    assert [e["action"] for e in entries] == [
        "push", "promote", "push", "canary", "promote", "alias", "rollback", "remove",
    ]  # fmt: skip
    assert running.ask("GET", "/v2/models/m/config")[1]["parameters"]["owner"]["string_value"] == "me"
    call("remove", "m", "1", "--force")
    assert "not loaded" in running.value("m") or "no model" in running.value("m")


def test_a_push_goes_on_after_both_sides_were_killed(root, tmp_path):
    source = net(tmp_path / "big", 3, 300_000)
    code = (
        "import os, signal, sys; from pathlib import Path; from fastinfer.serve.repository import remote\n"
        "remote.CHUNK = 100_000\n"
        "stop = lambda s: s > 0.5 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "remote.Remote(sys.argv[1]).push('m', Path(sys.argv[2]), version='', signer=None, settings=b'', by='', report=stop)"
    )
    with Running(root, allow_files=True) as first:
        done = subprocess.run([sys.executable, "-c", code, first.url, str(source)], timeout=60)
    assert done.returncode == -signal.SIGKILL and not (root / "m").exists()
    with Running(root, allow_files=True) as second:
        shares = []
        made = Remote(second.url).push("m", source, version="", signer=None, settings=b"", by="", report=shares.append)
        assert made.version == "1" and len(shares) == 1  # the ballast's rest alone was sent
        Remote(second.url).load("m")
        assert second.value("m") == 3
    assert (root / "m" / "1" / "more" / "ballast.bin").read_bytes() == (source / "more" / "ballast.bin").read_bytes()


DATA = bytes(range(256)) * 8


def begin(running, model="m", data=DATA, **given):
    entry = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    status, answer = running.ask("POST", f"/fastinfer/v1/models/{model}/uploads", {"files": {"d/a.bin": entry}} | given)
    assert status == 200, answer
    return f"/fastinfer/v1/models/{model}/uploads/{answer['upload']}"


def test_chunks_that_are_refused(running):
    at = begin(running)
    ask, one = running.ask, f"{at}?file=d%2Fa.bin"
    assert ask("PUT", f"{one}&offset=0", DATA[:1000]) == (200, {"received": 1000})
    status, answer = ask("PUT", f"{one}&offset=1500", DATA[1500:])
    assert status == 409 and "the next one begins at 1000" in answer["error"]
    assert ask("PUT", f"{one}&offset=500", DATA[500:])[0] == 409
    assert ask("PUT", f"{one}&offset=1000&sha256={'0' * 64}", DATA[1000:])[0] == 400
    assert ask("PUT", f"{one}&offset=1000", DATA)[0] == 400  # longer than was said
    for wrong in ("offset=-1", "offset=1e3", "offset=" + "9" * 30, "of=1", "offset=1&offset=2", "%ff=", "offset"):
        assert ask("PUT", f"{one}&{wrong}", b"x")[0] == 400, wrong
    for path in ("..%2F..%2Fx", "%2Fetc%2Fpasswd", "d%2Fb.bin", "", "d%00"):
        assert ask("PUT", f"{at}?file={path}&offset=0", b"x")[0] == 400, path
    assert ask("GET", at)[1]["received"] == {"d/a.bin": 1000}
    assert ask("POST", f"{at}/commit", {})[0] == 409  # not all there
    assert ask("POST", f"{at}/commit", {"settings": "ownr = 1"})[0] == 400
    assert ask("POST", f"{at}/commit", {"signature": 1})[0] == 400
    for upload in ("0" * 32, "..", "x", "%2e%2e"):
        assert ask("GET", f"/fastinfer/v1/models/m/uploads/{upload}")[0] in (400, 404)
    for files in (
        None,
        {},
        [],
        {"../a": {"size": 1, "sha256": "0" * 64}},
        {"a": {"size": 1 << 60, "sha256": "0" * 64}},
    ):
        assert ask("POST", "/fastinfer/v1/models/m/uploads", {"files": files})[0] == 400
    assert (
        ask("POST", "/fastinfer/v1/models/m/uploads", {"files": {"a": {"size": 1 << 49, "sha256": "0" * 64}}})[0] == 413
    )
    assert ask("PUT", f"{one}&offset=1000", DATA[1000:]) == (200, {"received": len(DATA)})
    assert ask("POST", f"{at}/commit", {})[0] == 200
    assert ask("POST", f"{at}/commit", {})[0] == 404
    status, _ = ask(
        "POST", "/fastinfer/v1/models/m/uploads", {"version": "1", "files": {"a": {"size": 0, "sha256": "0" * 64}}}
    )
    assert status == 400  # it exists


def test_a_client_that_leaves_within_a_chunk_leaves_nothing_of_it(running):
    at = begin(running)
    with socket.create_connection(("127.0.0.1", running.port)) as s:
        s.sendall(
            f"PUT {at}?file=d/a.bin&offset=0 HTTP/1.1\r\nHost: x\r\nContent-Length: 2048\r\n\r\n".encode() + DATA[:700]
        )
    assert running.ask("GET", at)[1]["received"] == {"d/a.bin": 0}
    assert running.ask("PUT", f"{at}?file=d/a.bin&offset=0", DATA)[0] == 200
    assert running.ask("DELETE", at) == (200, {})
    assert running.ask("GET", at)[0] == 404


def test_many_clients_push_the_same_model_at_once(running, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "CHUNK", 20_000)
    monkeypatch.setattr(remote.time, "sleep", lambda s: None)
    source = net(tmp_path / "net", 5, 200_000)

    def push(_):
        try:
            made = Remote(running.url).push(
                "m", source, version="1", signer=None, settings=b"", by="", report=lambda s: None
            )
            return made.version
        except ServeError as e:
            assert e.kind in (Kind.CONFLICT, Kind.ALREADY_EXISTS, Kind.INVALID_ARGUMENT, Kind.NOT_FOUND)
            return None

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(push, range(4)))
    if "1" not in made:  # they got into each other's way; what has arrived counts
        assert push(0) == "1"
    assert (running.config.repository / "m" / "1" / "more" / "ballast.bin").read_bytes() == (
        source / "more" / "ballast.bin"
    ).read_bytes()
    assert len([e for e in Log(running.config.repository).entries("m") if e.action == "push"]) == 1


def test_off_unless_asked_for(root, tmp_path):
    put(root, "m", 1, scale(4))
    with Running(root) as r:
        assert kind_of(push_to, Remote(r.url), net(tmp_path / "n", 1)) is Kind.FORBIDDEN
        assert kind_of(Remote(r.url).remove, "m", "1") is Kind.FORBIDDEN
        assert Remote(r.url).pull("m", "", tmp_path / "out") == ("1", 1)  # what is there may be read
        assert r.value("m") == 4


def push_to(client, source, model="m"):
    return client.push(model, source, version="", signer=None, settings=b"", by="", report=lambda s: None)


def test_who_may(root, tmp_path):
    keys = tmp_path / "keys.toml"
    rows = [
        ("all", ["admin", "read"], ["*"]),
        ("ocr", ["admin"], ["ocr-*"]),
        ("app", ["infer", "read"], ["*"]),
        ("see", ["read"], ["ocr-*"]),
    ]
    keys.write_text("".join(
        f'[[key]]\nname = "{n}"\nsha256 = "{digest_of(n)}"\nscopes = {json.dumps(s)}\nmodels = {json.dumps(m)}\n'
        for n, s, m in rows
    ))  # fmt: skip
    keys.chmod(0o600)
    source = net(tmp_path / "n", 1)
    with Running(root, allow_files=True, keys=[keys]) as r:
        assert kind_of(push_to, Remote(r.url), source) is Kind.UNAUTHENTICATED
        assert kind_of(push_to, Remote(r.url, "app"), source) is Kind.FORBIDDEN
        assert kind_of(push_to, Remote(r.url, "ocr"), source) is Kind.FORBIDDEN
        assert push_to(Remote(r.url, "ocr"), source, "ocr-a").version == "1"
        assert push_to(Remote(r.url, "all"), source).version == "1"
        assert Log(root).entries("ocr-a")[0].by == "ocr over HTTP"
        # An upload of another model is none of one's own.
        entry = {"files": {"a": {"size": 1, "sha256": "0" * 64}}}
        _, begun = r.ask("POST", "/fastinfer/v1/models/m/uploads", entry, Authorization="Bearer all")
        for method, end in (("GET", ""), ("PUT", "?file=a"), ("DELETE", ""), ("POST", "/commit")):
            at = f"/fastinfer/v1/models/ocr-a/uploads/{begun['upload']}{end}"
            assert r.ask(method, at, b"" if method != "POST" else {}, Authorization="Bearer ocr")[0] == 404
        assert kind_of(Remote(r.url, "app").pull, "m", "1", tmp_path / "out") is Kind.FORBIDDEN
        assert [v.model for v in Remote(r.url, "app").listing()] == ["m", "ocr-a"]
        assert [v.model for v in Remote(r.url, "see").listing()] == ["ocr-a"]
        assert kind_of(Remote(r.url, "see").listing, "m") is Kind.NOT_FOUND
        assert kind_of(Remote(r.url, "ocr").log) is Kind.FORBIDDEN  # of all models
        assert len(Remote(r.url, "ocr").log("ocr-a")) == 1


def test_what_comes_in_is_signed_by_who_is_trusted_now(root, tmp_path):
    """Case 29 over HTTP: unsigned and revoked keys are refused at the door, before anything is in the repository."""
    public = new_key(tmp_path / "key.pem")
    signer, trusted = Signer(tmp_path / "key.pem"), tmp_path / "trusted.toml"
    trusted.write_text(f'keys = ["{public}"]')
    source = net(tmp_path / "n", 1)
    push = lambda url, signer: Remote(url).push(  # noqa: E731
        "m", source, version="", signer=signer, settings=b"", by="", report=lambda s: None
    )
    with Running(root, allow_files=True, trusted=trusted) as r:
        assert kind_of(push, r.url, None) is Kind.FORBIDDEN and not (root / "m").exists()
        assert push(r.url, signer).version == "1"  # the upload is still there; only its signature was missing
        Remote(r.url).load("m")
        assert r.value("m") == 1
        trusted.write_text(f'keys = ["{public}"]\nrevoked_keys = ["{key_id(signer.public)}"]')
        r.run(r.server.refresh())
        assert kind_of(push, r.url, signer) is Kind.FORBIDDEN and not (root / "m" / "2").exists()
        assert "not" in r.value("m")  # and what it signed before serves no more


def test_chunks_are_as_small_as_the_servers_limit_of_bodies(root, tmp_path):
    source = net(tmp_path / "n", 1, 100_000)
    with Running(root, allow_files=True, limits=Limits(body=30_000)) as r:
        assert push_to(Remote(r.url), source).version == "1"
    assert (root / "m" / "1" / "more" / "ballast.bin").read_bytes() == (source / "more" / "ballast.bin").read_bytes()


def test_quota_and_abandoned_uploads_of_a_server(root):
    with Running(root, allow_files=True, upload_quota=3000) as r:
        at = begin(r)
        status, answer = r.ask(
            "POST", "/fastinfer/v1/models/n/uploads", {"files": {"a": {"size": 2000, "sha256": "0" * 64}}}
        )
        assert status == 413 and "the quota is 3000" in answer["error"]
        assert r.ask("DELETE", at)[0] == 200
        begin(r, "n")
        begin(r, "old", b"x")
    uploads = root / ".fastinfer" / "uploads"
    (old,) = (u for u in uploads.iterdir() if b'"old"' in (u / "manifest.json").read_bytes())
    for path in (*old.rglob("*"), old):
        os.utime(path, (1e9, 1e9))
    with Running(root, allow_files=True) as r:  # nobody has to begin another upload for that
        assert not old.exists() and len(list(uploads.iterdir())) == 1


def test_tokens_stay_off_plain_http():
    for url in ("http://models.example", "http://127.0.0.1.example:8000"):
        assert kind_of(Remote, url, "secret") is Kind.INVALID_ARGUMENT
    for url in (
        "ftp://x",
        "http://",
        "https://user:secret@host",
        "https://host?x=1",
        "http://h:99999",
        "http://h:x",
        "http://[::1",
    ):
        assert kind_of(Remote, url) is Kind.INVALID_ARGUMENT
    Remote("https://models.example", "secret")
    Remote("http://localhost:8000", "secret")


@pytest.mark.parametrize("hostile", [
    {"model": "m", "version": "1", "files": {"../../out": {"size": 1, "sha256": "0" * 64}}},
    {"model": "m", "version": "../1", "files": {}},
    {"model": "m", "version": "1", "files": {"a": {"size": 1 << 40, "sha256": "0" * 64}}},
])  # fmt: skip
def test_a_hostile_server_writes_nothing(tmp_path, hostile):
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps(hostile).encode() if "/files" in self.path else b""
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        (tmp_path / "here").mkdir()
        with pytest.raises((ServeError, InputError)):
            Remote(f"http://127.0.0.1:{server.server_port}").pull("m", "", tmp_path / "here" / "out")
        assert list(tmp_path.rglob("*")) == [tmp_path / "here"]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_bare_models_can_be_pulled(root, tmp_path):
    (root / "bare.onnx").write_bytes(scale(7).SerializeToString())
    with Running(root) as r:
        assert Remote(r.url).pull("bare", "", tmp_path / "out") == ("1", 1)
    assert (tmp_path / "out" / "bare.onnx").read_bytes() == (root / "bare.onnx").read_bytes()
    assert releases.find(root, "bare").version == "1"
